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
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/server"
	"wrenn.dev/wrenn/internal/server/hosts"
	"wrenn.dev/wrenn/internal/server/portname"
)

// serverFlags are what every command takes that serves the REST API.
type serverFlags struct {
	listen, domain, logFormat, keyFile string
	hostsListen, hostsAddress          string
	metricsListen                      string
	lease                              time.Duration
	privateWebhooks                    bool
	extensions                         []extension.Extension
}

// defaultListen is where the REST API is, for this machine alone: it has no TLS.
const defaultListen = "127.0.0.1:8080"

// defaultDomain leads to this machine: browsers and most resolvers know every name below it.
const defaultDomain = "localhost"

func (f *serverFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", env("WRENN_LISTEN", defaultListen), "TCP address of the REST API and of sandboxes' ports, without TLS ($WRENN_LISTEN)")
	fl.StringVar(&f.domain, "domain", env("WRENN_DOMAIN", defaultDomain),
		"where sandboxes' ports are, as <port>-<id>.<domain>; a URL if a proxy with TLS is before it ($WRENN_DOMAIN)")
	fl.StringVar(&f.metricsListen, "metrics-listen", env("WRENN_METRICS_LISTEN", ""),
		"TCP address of /metrics for Prometheus, which whoever reaches it may read; empty is none ($WRENN_METRICS_LISTEN)")
	fl.BoolVar(&f.privateWebhooks, "webhooks-private", os.Getenv("WRENN_WEBHOOKS_PRIVATE") == "1",
		"let webhooks go to addresses that are not public, and without TLS: who makes one reaches what this machine does ($WRENN_WEBHOOKS_PRIVATE=1)")
	fl.StringVar(&f.hostsListen, "hosts-listen", "", "TCP address where other machines join and report, such as :7444, with TLS of its own (default: none do)")
	fl.StringVar(&f.hostsAddress, "hosts-address", "", "where they find it, host:port; it is in the tokens (default: that of --hosts-listen)")
	fl.DurationVar(&f.lease, "host-lease", hosts.DefaultLease, "how long a host may be silent before it and what runs there is lost; the same for all servers of a database")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json, on standard error")
	fl.StringVar(&f.keyFile, "key-file", "", "write the first API key to this file, for its owner alone, instead of printing it")
}

func newServer(s streams, extensions []extension.Extension) *cobra.Command {
	f := serverFlags{extensions: extensions}
	var cfg server.Config
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Serve the REST API over a database and the agents of hosts",
		Long: `Server answers the REST API (GET /v1/openapi.json) for the sandboxes of this machine's agent, and with --hosts-listen of any number of other
machines, each with 'wrenn agent --join' and a token (POST /v1/hosts/tokens). All that it knows is in the PostgreSQL database; its schema is
brought up to date at the start. Several servers may run on one database. While no server runs, sandboxes run on.

In a new database it makes a first API key, with every scope, and prints it on standard output: once.

On the same address it forwards requests to the ports of sandboxes, told apart by their host: docs/proxy.md has more.

It has no TLS of its own: listen on this machine alone, or put a proxy with TLS before it. SIGTERM and Ctrl-C stop it; operations
under way are brought to their end first.`,
		Example: `  wrenn agent &
  wrenn server --database-url postgresql://wrenn@db/wrenn
  wrenn server --database-url postgresql://wrenn@db/wrenn --hosts-listen :7444 --hosts-address wrenn.example.org:7444`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.DatabaseURL == "" {
				return errs.Field("--database-url", "it is missing", "give PostgreSQL's URL, or use 'wrenn up', which brings its own")
			}
			if f.hostsListen != "" && !cmd.Flags().Changed("agent") {
				cfg.Agent = ""
			}
			return runServer(cmd.Context(), s, &f, cfg)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&cfg.DatabaseURL, "database-url", env("WRENN_DATABASE_URL", ""), "PostgreSQL 14 or later, such as postgresql://wrenn@db/wrenn ($WRENN_DATABASE_URL)")
	cmd.Flags().StringVar(&cfg.Agent, "agent", "unix://"+env("WRENN_AGENT_SOCKET", defaultSocket), "this machine's agent, whose sandboxes the server has as well; with --hosts-listen only if it is given")
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
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(server.GCPercent)
	}
	if cfg.Domain, err = portname.Parse(f.domain, l.Addr().(*net.TCPAddr).Port); err != nil {
		return errors.Join(err, l.Close())
	}
	hostsListener, err := f.forHosts(&cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	cfg.Log, cfg.Lease, cfg.Webhooks.Private, cfg.Extensions = log, f.lease, f.privateWebhooks, f.extensions
	s, err := server.Open(ctx, cfg)
	if err == nil {
		defer s.Close()
		err = f.greet(ctx, out, s, "http://"+l.Addr().String())
	}
	if err == nil && f.metricsListen != "" {
		var stop func()
		if stop, err = serveMetrics(f.metricsListen, s.Metrics()); err == nil {
			defer stop()
		}
	}
	if err != nil {
		if hostsListener != nil {
			err = errors.Join(err, hostsListener.Close())
		}
		return errors.Join(err, l.Close())
	}
	log.Info("serving", "listen", l.Addr().String(), "agent", cfg.Agent, "hosts", cfg.HostsAddress)
	ready(log)
	if hostsListener == nil {
		return s.Serve(ctx, l)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	joined := make(chan error, 1)
	go func() {
		defer cancel() // one without the other would be half a server
		joined <- s.ServeHosts(ctx, hostsListener)
	}()
	err = s.Serve(ctx, l)
	cancel()
	return errors.Join(err, <-joined)
}

// minLease leaves time for a report to come.
const minLease = time.Second

// forHosts listens for hosts, if that is asked for, and writes into the configuration where they find it.
func (f *serverFlags) forHosts(cfg *server.Config) (net.Listener, error) {
	if f.lease != 0 && f.lease < minLease {
		return nil, errs.Field("--host-lease", fmt.Sprintf("%v is too short", f.lease), "give a second or more, such as 30s")
	}
	if f.hostsListen == "" {
		if f.hostsAddress != "" {
			return nil, errs.Field("--hosts-address", "no hosts are listened for", "give --hosts-listen as well")
		}
		return nil, nil
	}
	l, err := net.Listen("tcp", f.hostsListen)
	if err != nil {
		return nil, errs.Field("--hosts-listen", err.Error(), "give an address that is free")
	}
	if cfg.HostsAddress = f.hostsAddress; cfg.HostsAddress == "" {
		cfg.HostsAddress = l.Addr().String()
		if host, _, _ := net.SplitHostPort(cfg.HostsAddress); net.ParseIP(host).IsUnspecified() {
			err = errs.Field("--hosts-address", "it is missing, and "+f.hostsListen+" is no address that another machine can reach", "give the name or address of this machine")
		}
	} else {
		err = pki.CheckAddress("--hosts-address", cfg.HostsAddress)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
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
