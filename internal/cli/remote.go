package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cli/transfer"
	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// remote is who has the sandboxes in its hands and is asked: a server, or the agent of this machine. Errors have the kinds of internal/errs; of what
// one of the two can't do, the error says so, with the fix. Steps are what an operation took, as far as is told.
type remote interface {
	create(ctx context.Context, w wish) (sandboxView, []vmm.Step, error)
	get(ctx context.Context, id string) (sandboxView, error)
	list(ctx context.Context) iter.Seq2[sandboxView, error]
	destroy(ctx context.Context, id, reason string) error
	pause(ctx context.Context, id, reason string) ([]vmm.Step, error)
	resume(ctx context.Context, id string) ([]vmm.Step, error)
	// fork's views are those of the clones, in any order.
	fork(ctx context.Context, id string, count int) ([]outcomeView, []vmm.Step, error)
	// exec returns when the command has ended and its output is written. It is killed when ctx ends or the caller is gone.
	exec(ctx context.Context, id string, c guest.Command) (guest.Result, error)
	files(id, user string) transfer.Guest

	snapshot(ctx context.Context, id, name string) ([]vmm.Step, error)
	snapshots(ctx context.Context) iter.Seq2[snapshotView, error]
	deleteSnapshot(ctx context.Context, name string) error

	templates(ctx context.Context) ([]templateView, error)
	events(ctx context.Context, q eventQuery) iter.Seq2[eventView, error]
	// stats are those of the sandboxes named, of all without a name.
	stats(ctx context.Context, ids []string) ([]statsView, error)
	logs(ctx context.Context, id string, size int) (logsView, error)
	close()
}

// wish is what a sandbox is to be.
type wish struct {
	sandbox.Spec
	ttl      time.Duration // whole seconds; 0 is for ever
	onExpiry string        // destroy or pause
	labels   map[string]string
}

// viaRemote is a command as it is done by a remote.
type viaRemote func(cmd *cobra.Command, args []string, s streams, r remote) error

// viaRemotes are the commands that a server or an agent does, if there is one; otherwise they do the work themselves.
var viaRemotes = map[string]viaRemote{
	"run": remoteRun, "exec": remoteExec, "shell": remoteShell, "pause": remotePause, "resume": remoteResume, "fork": remoteFork, "rm": remoteRemove,
	"snapshot create": remoteSnapshotCreate, "snapshot rm": remoteSnapshotRemove,
}

// throughRemotes has the commands ask who has the sandboxes.
func throughRemotes(root *cobra.Command, s streams) {
	for path, do := range viaRemotes {
		cmd := mustFind(root, path)
		direct := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			return either(cmd, func(r remote) error { return do(cmd, args, s, r) }, func() error { return direct(cmd, args) })
		}
	}
}

// either has a remote do something, or without one this process.
func either(cmd *cobra.Command, there func(remote) error, here func() error) error {
	r, err := findRemote(cmd)
	var none *noAgent
	switch {
	case errors.As(err, &none):
		return here() // the direct way says what is wrong
	case err != nil:
		return err
	}
	defer r.close()
	return there(r)
}

// noAgent is that no server was chosen and no agent answers. What can be done without does it then.
type noAgent struct{ error }

// Unwrap makes errors.Is see the kind.
func (e *noAgent) Unwrap() error { return e.error }

// findRemote finds who has this command's sandboxes: the server that flags, environment or the current context name, otherwise this machine's agent.
func findRemote(cmd *cobra.Command) (remote, error) {
	at, err := chosenServer(cmd)
	if err != nil {
		return nil, err
	}
	if at != nil {
		return newServerRemote(at)
	}
	c, err := findAgent(cmd)
	if err != nil {
		return nil, &noAgent{err}
	}
	return agentRemote{c}, nil
}

// withRemote does what only an agent or a server can, until Ctrl-C.
func withRemote(cmd *cobra.Command, do func(context.Context, remote) error) error {
	r, err := findRemote(cmd)
	if err != nil {
		return err
	}
	defer r.close()
	ctx, _, stop := newStopper(cmd.Context())
	defer stop()
	err = do(ctx, r)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// hereFlags are those of the work that this process does itself, on this machine.
var hereFlags = []string{"state-dir", "images", "firecracker", "jailer", "uid-base", "console"}

// hereFlag is the first of them that is given; empty when none is.
func hereFlag(cmd *cobra.Command) string {
	for _, flag := range hereFlags {
		if f := cmd.Flag(flag); f != nil && f.Changed {
			return flag
		}
	}
	return ""
}

// askTime bounds the question whether an agent is there. One that is busy answers at once, too.
const askTime = 5 * time.Second

// findAgent finds the agent that has this command's sandboxes. What names a folder of state, or is of the direct way alone, is not for it.
// ErrUnavailable when there is none, and ErrPermissionDenied when it does not let this user in; both with the fix.
func findAgent(cmd *cobra.Command) (*client.Client, error) {
	if flag := hereFlag(cmd); flag != "" {
		return nil, fmt.Errorf("'%s' with --%s does not ask the agent, and needs one: leave the flag out: %w", cmd.CommandPath(), flag, errs.ErrUnavailable)
	}
	socket := env("WRENN_AGENT_SOCKET", defaultSocket)
	if os.Getenv("WRENN_STATE_DIR") != "" && os.Getenv("WRENN_AGENT_SOCKET") == "" {
		return nil, fmt.Errorf("'%s' needs an agent, and with WRENN_STATE_DIR it is not known which: name its socket in WRENN_AGENT_SOCKET: %w",
			cmd.CommandPath(), errs.ErrUnavailable)
	}
	none := fmt.Errorf("'%s' needs an agent, and none answers at %s: start one with 'wrenn agent', name its socket in WRENN_AGENT_SOCKET, "+
		"or a server with 'wrenn login': %w", cmd.CommandPath(), socket, errs.ErrUnavailable)
	if info, err := os.Stat(socket); err != nil || info.Mode().Type() != os.ModeSocket {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	c := client.Unix(socket)
	if _, err := c.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{})); err != nil {
		c.Close()
		if unix.Access(socket, unix.W_OK) == unix.EACCES {
			return nil, fmt.Errorf("the agent at %s answers root alone: run it with sudo: %w", socket, errs.ErrPermissionDenied)
		}
		return nil, none // it left its socket behind
	}
	return c, nil
}

// originMissing names the flag that names what is not there.
func originMissing(spec sandbox.Spec, err error) error {
	if !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	return errs.Field("--"+map[bool]string{true: "snapshot", false: "template"}[spec.Snapshot != ""], err.Error(), "give one that is there")
}
