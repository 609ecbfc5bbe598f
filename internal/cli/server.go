package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server"
)

// serverFlags are what every command takes that serves the REST API.
type serverFlags struct {
	listen, logFormat, keyFile string
	privateWebhooks            bool
	extensions                 []extension.Extension
}

// defaultListen is where the REST API is, for this machine alone: it has no TLS.
const defaultListen = "127.0.0.1:8080"

func (f *serverFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", env("WRENN_LISTEN", defaultListen), "TCP address of the REST API, without TLS ($WRENN_LISTEN)")
	fl.BoolVar(&f.privateWebhooks, "webhooks-private", os.Getenv("WRENN_WEBHOOKS_PRIVATE") == "1",
		"let webhooks go to addresses that are not of the public internet, and without TLS: whoever may make one reaches what this machine does ($WRENN_WEBHOOKS_PRIVATE=1)")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json, on standard error")
	fl.StringVar(&f.keyFile, "key-file", "", "write the first API key to this file, for its owner alone, instead of printing it")
}

func newServer(s streams, extensions []extension.Extension) *cobra.Command {
	f := serverFlags{extensions: extensions}
	var cfg server.Config
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Serve the REST API over a database and an agent",
		Long: `Server answers the REST API (GET /v1/openapi.json) for the sandboxes of one host. All that it knows is in the PostgreSQL database;
its schema is brought up to date at the start. Several servers may run on one database.

In a new database it makes a first API key, with every scope, and prints it on standard output: once.

The API has no TLS of its own: listen on this machine alone, or put a proxy with TLS before it. SIGTERM and Ctrl-C stop it; operations
under way are brought to their end first.`,
		Example: `  wrenn agent &
  wrenn server --database-url postgresql://wrenn@db/wrenn`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.DatabaseURL == "" {
				return errs.Field("--database-url", "it is missing", "give PostgreSQL's URL, or use 'wrenn up', which brings its own")
			}
			return runServer(cmd.Context(), s, &f, cfg)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&cfg.DatabaseURL, "database-url", env("WRENN_DATABASE_URL", ""), "PostgreSQL 14 or later, such as postgresql://wrenn@db/wrenn ($WRENN_DATABASE_URL)")
	cmd.Flags().StringVar(&cfg.Agent, "agent", "unix://"+env("WRENN_AGENT_SOCKET", defaultSocket), "the agent that has the sandboxes")
	return cmd
}

func runServer(ctx context.Context, s streams, f *serverFlags, cfg server.Config) error {
	log, err := f.logger(s.err)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return f.serve(ctx, s.out, log, cfg)
}

func (f *serverFlags) logger(w io.Writer) (*slog.Logger, error) {
	return (&agentFlags{logFormat: f.logFormat}).logger(w)
}

// serve opens a server and answers until ctx ends. What a person needs first it prints.
func (f *serverFlags) serve(ctx context.Context, out io.Writer, log *slog.Logger, cfg server.Config) error {
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return errs.Field("--listen", err.Error(), "give an address that is free")
	}
	cfg.Log, cfg.Webhooks.Private, cfg.Extensions = log, f.privateWebhooks, f.extensions
	s, err := server.Open(ctx, cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer s.Close()
	if err := f.greet(ctx, out, s, "http://"+l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	log.Info("serving", "listen", l.Addr().String(), "agent", cfg.Agent)
	ready(log)
	return s.Serve(ctx, l)
}

// greet prints the address and, in a new database, tells the first key. One that can't be told is lost, so where it goes is opened before it is made.
func (f *serverFlags) greet(ctx context.Context, out io.Writer, s *server.Server, url string) error {
	tell := func(key string) error {
		_, err := fmt.Fprintf(out, "The first API key, which is told once:\n\n  %s\n\n  curl -H 'Authorization: Bearer %s' %s/v1/sandboxes\n", key, key, url)
		return err
	}
	if f.keyFile != "" {
		file, err := newSecretFile(f.keyFile)
		if err != nil {
			return errs.Field("--key-file", err.Error(), "give a path in a folder that can be written")
		}
		defer file.drop()
		tell = func(key string) error {
			if err := file.keep(key + "\n"); err != nil {
				return err
			}
			_, err := fmt.Fprintf(out, "The first API key is in %s\n", f.keyFile)
			return err
		}
	}
	if _, err := fmt.Fprintf(out, "Wrenn is at %s\n", url); err != nil {
		return err
	}
	key, err := s.FirstKey(ctx)
	if err != nil || key == "" {
		return err
	}
	return tell(key)
}
