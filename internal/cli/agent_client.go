package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// remote is a command as it is done by the agent.
type remote func(cmd *cobra.Command, args []string, s streams, c *client.Client) error

// remotes are the commands that go through the agent of this machine, if there is one: it has the sandboxes in its hands.
var remotes = map[string]remote{
	"run": remoteRun, "exec": remoteExec, "pause": remotePause, "resume": remoteResume, "fork": remoteFork, "rm": remoteRemove,
	"snapshot create": remoteSnapshotCreate, "snapshot rm": remoteSnapshotRemove,
}

// throughAgent has the commands ask the agent when there is one.
func throughAgent(root *cobra.Command, s streams) {
	for path, do := range remotes {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			panic("cli: no command " + path)
		}
		direct := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c := agentOf(cmd)
			if c == nil {
				return direct(cmd, args)
			}
			defer c.Close()
			return do(cmd, args, s, c)
		}
	}
}

// askTime bounds the question whether an agent is there. One that is busy answers at once, too.
const askTime = 5 * time.Second

// agentOf is the agent that has this command's sandboxes; nil when there is none.
func agentOf(cmd *cobra.Command) *client.Client {
	c, err := findAgent(cmd)
	if err != nil {
		return nil // the direct way says what is wrong
	}
	return c
}

// findAgent finds the agent that has this command's sandboxes. What names a folder of state, or is of the direct way alone, is not for it.
// ErrUnavailable when there is none, and ErrPermissionDenied when it does not let this user in; both with the fix.
func findAgent(cmd *cobra.Command) (*client.Client, error) {
	for _, flag := range []string{"state-dir", "images", "firecracker", "jailer", "uid-base", "console"} {
		if f := cmd.Flag(flag); f != nil && f.Changed {
			return nil, fmt.Errorf("'%s' with --%s does not ask the agent, and needs one: leave the flag out: %w", cmd.CommandPath(), flag, errs.ErrUnavailable)
		}
	}
	socket := env("WRENN_AGENT_SOCKET", defaultSocket)
	if os.Getenv("WRENN_STATE_DIR") != "" && os.Getenv("WRENN_AGENT_SOCKET") == "" {
		return nil, fmt.Errorf("'%s' needs an agent, and with WRENN_STATE_DIR it is not known which: name its socket in WRENN_AGENT_SOCKET: %w",
			cmd.CommandPath(), errs.ErrUnavailable)
	}
	none := fmt.Errorf("'%s' needs an agent, and none answers at %s: start one with 'wrenn agent', or name its socket in WRENN_AGENT_SOCKET: %w",
		cmd.CommandPath(), socket, errs.ErrUnavailable)
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

// commandFlagsOf are the flags of a command that runs another one in a guest.
func commandFlagsOf(cmd *cobra.Command) commandFlags {
	fl, f := cmd.Flags(), commandFlags{}
	f.timeout, _ = fl.GetString("timeout") // each is registered, with this type
	f.env, _ = fl.GetStringArray("env")
	f.user, _ = fl.GetString("user")
	f.cwd, _ = fl.GetString("cwd")
	f.interactive, _ = fl.GetBool("interactive")
	f.tty, _ = fl.GetBool("tty")
	f.progress, _ = fl.GetBool("progress")
	return f
}

// progressOf is where a command says what steps took.
func progressOf(cmd *cobra.Command, s streams) progress {
	on, _ := cmd.Flags().GetBool("progress")
	return progress{on: on, w: s.err}
}

// phases tells what an operation took.
func (p progress) phases(what string, began time.Time, phases []*pb.Phase) {
	for _, ph := range phases {
		p.step(vmm.Step{Name: ph.GetName(), Took: time.Duration(ph.GetTookMicroseconds()) * time.Microsecond})
	}
	p.line("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

func remoteExec(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	f := commandFlagsOf(cmd)
	command, err := f.command(s, args[1:])
	if err != nil {
		return err
	}
	ctx, stopper, stop := newStopper(cmd.Context())
	defer stop()
	return execThere(ctx, s, c, args[0], &f, command, stopper)
}

// execThere runs a command by the agent on the process's own streams.
func execThere(ctx context.Context, s streams, c *client.Client, id string, f *commandFlags, command guest.Command, stopper *stopper) error {
	if command.Timeout.Milliseconds() > math.MaxUint32 {
		return errs.Field("--timeout", fmt.Sprintf("%v is too long", command.Timeout), "give less than 49 days, or leave it out")
	}
	began := time.Now()
	to := client.Streams{Stdout: s.out, Stderr: s.err, Signals: stopper.signals}
	if f.interactive {
		to.Stdin = s.in
	}
	req := &pb.ExecRequest{Id: id, KillOnHangup: true}
	if f.tty {
		restore, err := attachTerminal(ctx, s, &command)
		if err != nil {
			return err
		}
		defer restore()
		req.Terminal = &pb.TerminalSize{Cols: command.PTY.Cols, Rows: command.PTY.Rows}
		resize := make(chan *pb.TerminalSize)
		to.Resize = resize
		done := make(chan struct{})
		defer close(done)
		go passSizes(command.Resize, resize, done)
	}
	req.Cmd, req.Args, req.Env, req.Cwd, req.User = command.Cmd, command.Args, command.Env, command.Cwd, command.User
	req.TimeoutMilliseconds = uint32(command.Timeout.Milliseconds())
	if command.Timeout > 0 {
		req.TimeoutMilliseconds = max(req.TimeoutMilliseconds, 1)
	}
	stopper.running.Store(true)
	r, err := c.Exec(ctx, req, to)
	result := guest.Result{ExitCode: r.ExitCode, Signal: r.Signal, Status: r.Status}
	tell := progress{on: f.progress, w: s.err}
	tell.step(vmm.Step{Name: "command", Took: time.Since(began)})
	if err == nil {
		tell.line("%s", ended(result))
	}
	return exit(result, err)
}

// passSizes hands the terminal's sizes on until done is closed.
func passSizes(from <-chan guest.Size, to chan<- *pb.TerminalSize, done <-chan struct{}) {
	for {
		select {
		case size := <-from:
			select {
			case to <- &pb.TerminalSize{Cols: size.Cols, Rows: size.Rows}:
			case <-done:
				return
			}
		case <-done:
			return
		}
	}
}

// abandoned is how long the sandbox of a run may be idle: it is destroyed then, because the program that made it was killed.
const abandoned = time.Minute

func remoteRun(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	f := runFlags{commandFlags: commandFlagsOf(cmd)}
	f.readSpec(cmd)
	f.keep, _ = cmd.Flags().GetBool("keep")
	spec, err := f.spec()
	if err != nil {
		return err
	}
	command, err := f.command(s, args)
	if err != nil {
		return err
	}
	req := createRequest(spec)
	if !f.keep {
		req.TtlSeconds = uint32(abandoned.Seconds())
	}
	tell, began := progressOf(cmd, s), time.Now()
	ctx, stopper, stop := newStopper(cmd.Context())
	defer stop()
	made, err := c.Sandboxes.Create(ctx, connect.NewRequest(req))
	if err != nil {
		return originMissing(spec, err)
	}
	id := made.Msg.GetSandbox().GetId()
	tell.phases(id+" answers", began, made.Msg.GetPhases())
	outcome := execThere(ctx, s, c, id, &f.commandFlags, command, stopper)
	if f.keep {
		fmt.Fprintf(s.err, "wrenn: %s was kept; 'wrenn rm %s' removes it\n", id, id)
		return outcome
	}
	_, err = c.Sandboxes.Destroy(context.WithoutCancel(ctx), connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: "its command ended"}))
	if err == nil || errors.Is(err, errs.ErrNotFound) {
		return outcome
	}
	return errors.Join(err, outcome)
}

// createRequest asks for what a spec describes.
func createRequest(spec sandbox.Spec) *pb.CreateRequest {
	return &pb.CreateRequest{Template: spec.Template, Snapshot: spec.Snapshot, Vcpus: uint32(min(spec.VCPUs, math.MaxUint32)),
		MemoryMib: uint32(spec.MemoryMiB), DiskBytes: uint64(spec.DiskBytes), Internet: spec.Policy.Internet, Cold: spec.Cold, Stream: spec.Stream}
}

// originMissing names the flag that names what is not there.
func originMissing(spec sandbox.Spec, err error) error {
	if !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	return errs.Field("--"+map[bool]string{true: "snapshot", false: "template"}[spec.Snapshot != ""], err.Error(), "give one that is there")
}

// readSpec reads the flags that say what the sandbox is made of.
func (f *specFlags) readSpec(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.template, _ = fl.GetString("template")
	f.snapshot, _ = fl.GetString("snapshot")
	f.memory, _ = fl.GetString("memory")
	f.disk, _ = fl.GetString("disk")
	f.vcpus, _ = fl.GetInt("vcpus")
	f.cold, _ = fl.GetBool("cold")
	f.stream, _ = fl.GetBool("stream")
	f.noInternet, _ = fl.GetBool("no-internet")
}
