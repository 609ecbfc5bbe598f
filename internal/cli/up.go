package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/postgres"
	"wrenn.dev/wrenn/internal/server"
)

// upFlags are what `wrenn up` takes.
type upFlags struct {
	serverFlags
	agentFlags  agentFlags
	databaseURL string
}

func newUp(s streams, host *hostFlags, extensions []extension.Extension) *cobra.Command {
	f := upFlags{serverFlags: serverFlags{extensions: extensions}}
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine: database, agent and REST API",
		Long: `Up runs all that one machine needs: a private PostgreSQL from the machine's own programs, the agent, and the server with the REST API.
It prints the address and, the first time, an API key with every scope: once.

The database is beside the state folder, in /var/lib/wrenn-postgres, on a unix socket that root and its own user alone can reach;
--database-url takes another one instead. Sandboxes outlive it: started again, it goes on where it was.

Ports of sandboxes are at <port>-<id>.localhost, or below another --domain: docs/proxy.md has more.

The API has no TLS of its own: it listens on this machine alone unless --listen says otherwise. SIGTERM and Ctrl-C stop it; operations
under way are brought to their end first, and sandboxes run on.`,
		Example: `  wrenn up
  wrenn up --max-memory 48G --listen 10.0.0.1:8080`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), s, host, &f) },
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.databaseURL, "database-url", env("WRENN_DATABASE_URL", ""), "a PostgreSQL to use instead of a private one ($WRENN_DATABASE_URL)")
	fl.StringVar(&f.agentFlags.socket, "socket", env("WRENN_AGENT_SOCKET", defaultSocket), "the agent's unix socket; root alone may connect ($WRENN_AGENT_SOCKET)")
	f.agentFlags.registerLimits(fl)
	return cmd
}

// databaseStart and databaseStop bound how long the private database may take: after a crash it has its log to work off.
const (
	databaseStart = 5 * time.Minute
	databaseStop  = time.Minute
)

func runUp(ctx context.Context, s streams, host *hostFlags, f *upFlags) (err error) {
	limits, err := f.agentFlags.limits()
	if err != nil {
		return err
	}
	log, err := f.logger(s.err)
	if err != nil {
		return err
	}
	parts, err := host.ready()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	url, lost := f.databaseURL, (<-chan struct{})(nil)
	if url == "" {
		db, err := startDatabase(ctx, log, databaseDir(host.stateDir))
		if err != nil {
			return err
		}
		cu.Add("stop the database", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, databaseStop)
			defer cancel()
			return db.Close(ctx)
		})
		url, lost = db.URL(), db.Done()
	}
	a, err := hostagent.Start(ctx, hostagent.Config{Manager: parts.Manager, StateDir: parts.StateDir, Limits: limits, WarmSlots: f.agentFlags.warmSlots, Log: log})
	if err != nil {
		return err
	}
	err = f.together(ctx, s, a, log, url, lost)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(err, a.Close(closing))
}

// databaseDir is beside the state folder and not in it: that one root alone may enter, and PostgreSQL runs as another user.
func databaseDir(stateDir string) string { return filepath.Clean(stateDir) + "-postgres" }

func startDatabase(ctx context.Context, log *slog.Logger, dir string) (*postgres.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseStart)
	defer cancel()
	began := time.Now()
	db, err := postgres.Start(ctx, postgres.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	log.Info("the database runs", "folder", dir, "took", time.Since(began))
	return db, nil
}

// together serves the agent on its socket and the REST API, until ctx ends or one of the parts does. The server ends first, while what
// it works with is there.
//
// The agent is in this process and not one of its own: whoever breaks the server has the agent's socket, which may do everything with this
// machine's sandboxes, and they outlive both. Where the two are to be apart there are 'wrenn agent' and 'wrenn server'.
func (f *upFlags) together(ctx context.Context, s streams, a *hostagent.Agent, log *slog.Logger, url string, lost <-chan struct{}) error {
	agentCtx, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	serverCtx, stopServer := context.WithCancelCause(ctx)
	defer stopServer(nil)
	served := make(chan error, 1)
	go func() {
		err := f.agentFlags.serveCalls(agentCtx, a)
		stopServer(fmt.Errorf("the agent's calls are not served any more: %w", errs.ErrUnavailable))
		served <- err
	}()
	go func() {
		select {
		case <-lost:
			stopServer(fmt.Errorf("the database has ended by itself: %w", errs.ErrUnavailable))
		case <-serverCtx.Done():
		}
	}()
	err := f.serve(serverCtx, s.out, log, server.Config{DatabaseURL: url, Agent: "unix://" + f.agentFlags.socket})
	if cause := context.Cause(serverCtx); ctx.Err() == nil && cause != nil && err == nil {
		err = cause
	}
	stopServer(nil)
	stopAgent()
	return errors.Join(err, <-served)
}

// serveCalls answers the agent's calls on its socket until ctx ends.
func (f *agentFlags) serveCalls(ctx context.Context, a *hostagent.Agent) error {
	listeners, err := f.listeners(nil)
	if err != nil {
		return err
	}
	return rpc.Serve(ctx, rpc.Handler(a), callGrace, listeners...)
}
