package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// known is an identity that envd gets when the channel is closed.
type known struct {
	token string
	when  <-chan struct{}
}

func (k known) Identity(ctx context.Context) (envd.Identity, error) {
	select {
	case <-k.when:
		return envd.Identity{Token: k.token, SandboxID: "cl-1", TemplateID: "base"}, nil
	case <-ctx.Done():
		return envd.Identity{}, ctx.Err()
	}
}

// now is a channel that is closed.
func now() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// real starts the real envd in this process and returns a client of it. Its one user is who runs the test.
func real(t *testing.T, source envd.Source) *Client {
	t.Helper()
	dir := t.TempDir()
	db := user.DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	text := fmt.Sprintf("user:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), dir)
	if err := os.WriteFile(db.Passwd, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := envd.New(envd.Config{Source: source, Users: db, Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	c := New(func(ctx context.Context, _ int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}, token)
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// knowing is a client of a real envd that knows its token.
func knowing(t *testing.T) *Client {
	t.Helper()
	c := real(t, known{token, now()})
	if err := c.WaitReady(patient(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// patient is a context that ends when a test hangs.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestRealCommands runs commands in the real envd.
func TestRealCommands(t *testing.T) {
	c, ctx := real(t, known{token, now()}), patient(t)
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Health(ctx); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) Command { return Command{Cmd: "sh", Args: []string{"-c", script}} }
	with := func(c Command, change func(*Command)) Command { change(&c); return c }
	for name, cmd := range map[string]struct {
		Command
		out, err string
		want     Result
		kind     error
	}{
		"streams":      {Command: sh("echo out; echo err >&2; exit 3"), out: "out\n", err: "err\n", want: Result{ExitCode: 3, Status: "exit status 3"}},
		"no input":     {Command: sh("cat"), want: Result{Status: "exit status 0"}},
		"input":        {Command: with(sh("cat"), func(c *Command) { c.Stdin = strings.NewReader("hello") }), out: "hello", want: Result{Status: "exit status 0"}},
		"environment":  {Command: with(sh("echo $A; pwd"), func(c *Command) { c.Env, c.Cwd = map[string]string{"A": "b"}, "/" }), out: "b\n/\n", want: Result{Status: "exit status 0"}},
		"a signal":     {Command: sh("kill -HUP $$"), want: Result{ExitCode: -1, Signal: syscall.SIGHUP, Status: "signal: hangup"}},
		"the last one": {Command: sh("kill -64 $$"), want: Result{ExitCode: -1, Signal: 64, Status: "signal: signal 64"}},
		"a terminal":   {Command: with(sh("stty size; tty >&2"), func(c *Command) { c.PTY = &Size{Cols: 80, Rows: 24} }), out: "24 80\r\n/dev/pts/", want: Result{Status: "exit status 0"}},
		"its end":      {Command: with(sh("stty -echo; cat"), func(c *Command) { c.PTY, c.Stdin = &Size{80, 24}, strings.NewReader("") }), want: Result{Status: "exit status 0"}},
		"no file":      {Command: Command{Cmd: "no-such-command"}, kind: errs.ErrInvalid},
		"no folder":    {Command: Command{Cmd: "true", Cwd: "/nope\x1b"}, kind: errs.ErrInvalid},
		"no user":      {Command: Command{Cmd: "true", User: "nobody-here"}, kind: errs.ErrUnauthenticated},
		"a user":       {Command: with(sh("echo $USER"), func(c *Command) { c.User = "user" }), out: "user\n", want: Result{Status: "exit status 0"}},
		"too long":     {Command: Command{Cmd: "sleep", Args: []string{"1000"}, Timeout: 50 * time.Millisecond}, kind: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			cmd.Command.Stdout, cmd.Command.Stderr = &stdout, &stderr
			got, err := c.Run(patient(t), cmd.Command)
			if !errors.Is(err, cmd.kind) || (err == nil) != (cmd.kind == nil) {
				t.Fatalf("Run = %v, want %v", err, cmd.kind)
			}
			printable(t, err)
			if diff := cmp.Diff(cmd.want, got); diff != "" {
				t.Errorf("the result (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(stdout.String(), cmd.out) || stderr.String() != cmd.err {
				t.Errorf("got %q and %q", &stdout, &stderr)
			}
		})
	}
}

// TestALotPassesThrough sends some megabytes through a command and back.
func TestALotPassesThrough(t *testing.T) {
	c := knowing(t)
	var out strings.Builder
	input := strings.Repeat("0123456789abcdef", megabyte/4)
	if _, err := c.Run(patient(t), Command{Cmd: "cat", Stdin: strings.NewReader(input), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if out.String() != input {
		t.Errorf("of %d bytes %d came back", len(input), out.Len())
	}
}

// TestACommandThatWantsNoInput ends well although it was given some.
func TestACommandThatWantsNoInput(t *testing.T) {
	c := knowing(t)
	for _, script := range []string{"exit 3", "exec <&-; exit 3", "head -c 1 >/dev/null; exit 3"} {
		res, err := c.Run(patient(t), Command{Cmd: "sh", Args: []string{"-c", script}, Stdin: zeros{}})
		if err != nil || res.ExitCode != 3 {
			t.Errorf("%s: Run = %+v, %v", script, res, err)
		}
	}
}

// talking is a writer that tells of each piece.
type talking chan string

func (c talking) Write(p []byte) (int, error) { c <- string(p); return len(p), nil }

// TestASignalReachesTheCommand sends SIGTERM to a command that answers it.
func TestASignalReachesTheCommand(t *testing.T) {
	c, out, signals := real(t, known{token, now()}), make(talking), make(chan syscall.Signal)
	go func() {
		for text := range out {
			if text == "ready\n" {
				signals <- unix.SIGTERM
			}
		}
	}()
	defer close(out)
	script := `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`
	res, err := c.Run(patient(t), Command{Cmd: "sh", Args: []string{"-c", script}, Stdout: out, Signals: signals})
	if err != nil || res.ExitCode != 7 {
		t.Errorf("Run = %+v, %v", res, err)
	}
}

// TestATerminalIsResized gives a terminal a new size while its command waits for one.
func TestATerminalIsResized(t *testing.T) {
	c, out, sizes := real(t, known{token, now()}), make(talking), make(chan Size, 1)
	go func() {
		for text := range out {
			if strings.Contains(text, "ready") {
				sizes <- Size{Cols: 132, Rows: 50}
			}
		}
	}()
	defer close(out)
	script := `echo ready; while [ "$(stty size)" != "50 132" ]; do sleep 0.01; done`
	cmd := Command{Cmd: "sh", Args: []string{"-c", script}, PTY: &Size{Cols: 80, Rows: 24}, Stdout: out, Resize: sizes}
	if res, err := c.Run(patient(t), cmd); err != nil || res.ExitCode != 0 {
		t.Errorf("Run = %+v, %v", res, err)
	}
}

// TestARealCommandIsKilled ends the context of a run whose command ignores everything that can be ignored.
func TestARealCommandIsKilled(t *testing.T) {
	c, why := real(t, known{token, now()}), errors.New("enough")
	ctx, cancel := context.WithCancelCause(patient(t))
	out := make(talking)
	go func() { <-out; cancel(why) }()
	script := `trap '' TERM HUP INT; echo ready; exec sleep 1000`
	res, err := c.Run(ctx, Command{Cmd: "sh", Args: []string{"-c", script}, Stdout: out})
	if !errors.Is(err, why) || res.Signal != syscall.SIGKILL {
		t.Errorf("Run = %+v, %v", res, err)
	}
}

// TestAFullDiskEndsARealCommand has a writer fail.
func TestAFullDiskEndsARealCommand(t *testing.T) {
	c := knowing(t)
	r, w := io.Pipe()
	full := errors.New("the disk is full")
	_ = r.CloseWithError(full)
	if _, err := c.Run(patient(t), Command{Cmd: "yes", Stdout: w}); !errors.Is(err, full) {
		t.Errorf("Run = %v", err)
	}
}

// TestRealEnvdGetsItsTokenLate waits for an envd that refuses every call at first.
func TestRealEnvdGetsItsTokenLate(t *testing.T) {
	when := make(chan struct{})
	c, ready := real(t, known{token, when}), make(chan error, 1)
	ctx := patient(t)
	if err := c.ping(ctx); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("before the token: %v", err)
	}
	go func() { ready <- c.WaitReady(ctx) }()
	close(when)
	if err := <-ready; err != nil {
		t.Error(err)
	}
}

func TestRealEnvdWantsAnotherToken(t *testing.T) {
	c, ctx := real(t, known{"another", now()}), patient(t)
	if err := c.WaitReady(ctx); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("WaitReady = %v", err)
	}
	if _, err := c.Run(ctx, Command{Cmd: "true"}); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("Run = %v", err)
	}
}
