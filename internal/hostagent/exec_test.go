package hostagent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// command is one that tells when it has started.
func command(started chan<- uint32) client.Command {
	return client.Command{Cmd: "x", Stdout: io.Discard, Stderr: io.Discard, Started: func(pid uint32) {
		if started != nil {
			started <- pid
		}
	}}
}

func TestInputReachesACommand(t *testing.T) {
	w := newWorld(t)
	w.guest.run = echo
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	started := make(chan uint32, 1)
	var out bytes.Buffer
	cmd := command(started)
	cmd.Stdout = &out
	ended := make(chan client.Result, 1)
	go func() {
		r, err := a.Exec(t.Context(), sb.ID, cmd, hostagent.ExecOptions{Stdin: true})
		if err != nil {
			t.Error(err)
		}
		ended <- r
	}()
	pid := <-started
	long := strings.Repeat("0123456789", 1000)
	for _, data := range []string{"a", long, "b"} {
		if err := a.SendInput(t.Context(), sb.ID, pid, []byte(data), data == "b"); err != nil {
			t.Error(err)
		}
	}
	if r := <-ended; r.ExitCode != 3 || out.String() != "a"+long+"b" {
		t.Errorf("%+v, %d bytes", r, out.Len())
	}
	for what, err := range map[string]error{
		"input":     a.SendInput(t.Context(), sb.ID, pid, []byte("x"), false),
		"a signal":  a.Signal(t.Context(), sb.ID, pid, syscall.SIGTERM),
		"a size":    a.Resize(t.Context(), sb.ID, pid, client.Size{}),
		"a sandbox": a.Signal(t.Context(), "cl-0123456789abcdefghij", pid, syscall.SIGTERM),
	} {
		if !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
}

func TestSignals(t *testing.T) {
	w := newWorld(t)
	w.guest.signals = make(chan syscall.Signal, 1)
	w.guest.steer = func(what string, _ uint32) error {
		if what == "signal "+syscall.SIGTERM.String() {
			w.guest.signals <- syscall.SIGTERM
			return nil
		}
		return errs.ErrFailedPrecondition // as one without input and without a terminal
	}
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	started, ended := make(chan uint32, 1), make(chan client.Result, 1)
	go func() {
		r, err := a.Exec(t.Context(), sb.ID, command(started), hostagent.ExecOptions{})
		if err != nil {
			t.Error(err)
		}
		ended <- r
	}()
	pid := <-started
	if err := a.Signal(t.Context(), sb.ID, pid, syscall.SIGHUP); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
	if err := a.SendInput(t.Context(), sb.ID, pid, []byte("x"), false); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := a.Resize(t.Context(), sb.ID, pid, client.Size{}); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := a.Signal(t.Context(), sb.ID, pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if r := <-ended; r.Signal != syscall.SIGTERM {
		t.Errorf("%+v", r)
	}
}

// TestWithoutAStream steers a command that runs on by itself, beside one whose caller has just left.
func TestWithoutAStream(t *testing.T) {
	w := newWorld(t)
	var asked []string
	w.guest.steer = func(what string, pid uint32) error {
		if pid != 7 {
			return errs.ErrNotFound
		}
		asked = append(asked, what)
		return nil
	}
	left := make(chan struct{})
	w.guest.run = func(ctx context.Context, cmd client.Command) (client.Result, error) {
		cmd.Started(7)
		<-left // the stream stays open for a while
		return client.Result{}, context.Cause(ctx)
	}
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	ctx, leave := context.WithCancel(t.Context())
	started, ended := make(chan uint32, 1), make(chan struct{})
	go func() {
		defer close(ended)
		cmd := command(started)
		cmd.PTY = &client.Size{Cols: 1, Rows: 1}
		_, _ = a.Exec(ctx, sb.ID, cmd, hostagent.ExecOptions{Stdin: true})
	}()
	pid := <-started
	leave()
	for _, err := range []error{a.SendInput(t.Context(), sb.ID, pid, []byte("x"), true), a.Signal(t.Context(), sb.ID, pid, syscall.SIGKILL),
		a.Resize(t.Context(), sb.ID, pid, client.Size{Cols: 80, Rows: 24})} {
		if err != nil {
			t.Error(err)
		}
	}
	close(left)
	<-ended
	if got := strings.Join(asked, ", "); got != "input x true, signal killed, size 80 24" {
		t.Errorf("the guest was asked for %s", got)
	}
	if err := a.Signal(t.Context(), sb.ID, 8, syscall.SIGKILL); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if _, _, err := a.Pause(t.Context(), sb.ID, "x"); err != nil {
		t.Fatal(err)
	}
	if err := a.Signal(t.Context(), sb.ID, pid, syscall.SIGKILL); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
}

// TestTwoStreams: one that joins a command and leaves it does not take its input from who had it before.
func TestTwoStreams(t *testing.T) {
	w := newWorld(t)
	w.guest.run = func(ctx context.Context, cmd client.Command) (client.Result, error) {
		cmd.Started(7)
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(cmd.Stdout, cmd.Stdin)
			ended <- err
		}()
		select {
		case err := <-ended:
			return client.Result{ExitCode: 3}, err
		case <-ctx.Done():
			return client.Result{}, context.Cause(ctx)
		}
	}
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	open := func(ctx context.Context, out io.Writer) <-chan client.Result {
		started, ended := make(chan uint32, 1), make(chan client.Result, 1)
		cmd := command(started)
		cmd.Stdout = out
		go func() {
			r, _ := a.Attach(ctx, sb.ID, 7, cmd, hostagent.ExecOptions{Stdin: true})
			ended <- r
		}()
		<-started
		return ended
	}
	var first bytes.Buffer
	ended := open(t.Context(), &first)
	ctx, leave := context.WithCancel(t.Context())
	open(ctx, io.Discard)
	leave()
	if err := a.SendInput(t.Context(), sb.ID, 7, []byte("x"), true); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.ExitCode != 3 || first.String() != "x" {
		t.Errorf("%+v, %q", r, &first)
	}
}

// TestWhatEndsACommandsStream, and what the command learns of it: an ErrUnavailable leaves it alone.
func TestWhatEndsACommandsStream(t *testing.T) {
	for name, c := range map[string]struct {
		kill bool
		end  func(w *world, a *hostagent.Agent, id string, hangUp func())
		want error // of the call
		told error // of the command; nil for another than ErrUnavailable
	}{
		"hang-up":           {false, func(_ *world, _ *hostagent.Agent, _ string, hangUp func()) { hangUp() }, errs.ErrUnavailable, errs.ErrUnavailable},
		"hang-up that ends": {true, func(_ *world, _ *hostagent.Agent, _ string, hangUp func()) { hangUp() }, context.Canceled, nil},
		"pause": {true, func(w *world, a *hostagent.Agent, id string, _ func()) {
			if _, _, err := a.Pause(w.t.Context(), id, "x"); err != nil {
				w.t.Error(err)
			}
		}, errs.ErrUnavailable, errs.ErrUnavailable},
		"destroy": {true, func(w *world, a *hostagent.Agent, id string, _ func()) {
			if _, err := a.Destroy(w.t.Context(), id, "x"); err != nil {
				w.t.Error(err)
			}
		}, errs.ErrUnavailable, errs.ErrUnavailable},
		"death": {true, func(w *world, _ *hostagent.Agent, id string, _ func()) {
			w.Machines.End(id, vmm.Exit{Reason: vmm.ExitOOM, Detail: "out of memory"})
		}, errs.ErrUnavailable, errs.ErrUnavailable},
		"the agent's end": {true, func(w *world, a *hostagent.Agent, _ string, _ func()) { w.close(a) }, errs.ErrUnavailable, errs.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			told := make(chan error, 1)
			w.guest.run = func(ctx context.Context, cmd client.Command) (client.Result, error) {
				r, err := sleeper(ctx, cmd)
				told <- err
				return r, err
			}
			a := w.agent(quota.Amount{})
			sb := w.create(a, hostagent.Spec{})
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			started, ended := make(chan uint32, 1), make(chan error, 1)
			go func() {
				_, err := a.Exec(ctx, sb.ID, command(started), hostagent.ExecOptions{KillOnHangup: c.kill})
				ended <- err
			}()
			<-started
			c.end(w, a, sb.ID, hangUp)
			if err := <-told; errors.Is(err, errs.ErrUnavailable) != (c.told != nil) {
				t.Errorf("the command was told %v", err)
			}
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("the caller got %v", err)
			}
		})
	}
}

// TestAWriterThatFails does not end a command that is to go on.
func TestAWriterThatFails(t *testing.T) {
	w := newWorld(t)
	wrote := make(chan error, 1)
	w.guest.run = func(ctx context.Context, cmd client.Command) (client.Result, error) {
		cmd.Started(7)
		_, err := cmd.Stdout.Write([]byte("x"))
		wrote <- err
		<-ctx.Done()
		return client.Result{}, context.Cause(ctx)
	}
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	cmd := command(nil)
	r, pipe := io.Pipe()
	r.Close()
	cmd.Stdout = pipe
	if _, err := a.Exec(t.Context(), sb.ID, cmd, hostagent.ExecOptions{}); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 300)
	for range 300 {
		go func() {
			_, err := a.Exec(ctx, sb.ID, command(nil), hostagent.ExecOptions{})
			results <- err
		}()
	}
	for range 44 { // 300 - 256
		if err := <-results; !errors.Is(err, errs.ErrResourceExhausted) {
			t.Error(err)
		}
	}
	cancel()
	for range 256 {
		if err := <-results; !errors.Is(err, errs.ErrUnavailable) {
			t.Error(err)
		}
	}
}

func TestAConnectionIsActivity(t *testing.T) {
	timed(t, func(t *testing.T, w *world, a *hostagent.Agent) {
		w.Network.Guest = func(context.Context, string, int) (net.Conn, error) {
			here, there := net.Pipe()
			t.Cleanup(func() { there.Close() })
			return here, nil
		}
		sb := w.create(a, hostagent.Spec{TTL: time.Hour})
		conn, err := a.Dial(t.Context(), sb.ID, 80)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if w.state(a, sb.ID) != sandbox.Running {
			t.Error("it expired under an open connection")
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(61 * time.Minute)
		if w.state(a, sb.ID) != sandbox.Stopped {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
		if _, err := a.Dial(t.Context(), sb.ID, 80); !errors.Is(err, errs.ErrNotFound) {
			t.Error(err)
		}
	})
}

// TestACommandWaitsForAFreeze instead of failing in a guest that takes no calls.
func TestACommandWaitsForAFreeze(t *testing.T) {
	w := newWorld(t)
	w.guest.run = func(context.Context, client.Command) (client.Result, error) { return client.Result{ExitCode: 5}, nil }
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	w.VMM.OnPause = func(context.Context, string) error { entered <- struct{}{}; <-hold; return nil }
	frozen, ran := make(chan error, 1), make(chan client.Result, 1)
	go func() { _, _, err := a.CreateSnapshot(t.Context(), sb.ID, "one"); frozen <- err }()
	<-entered
	impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.Exec(impatient, sb.ID, command(nil), hostagent.ExecOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	go func() {
		r, err := a.Exec(t.Context(), sb.ID, command(nil), hostagent.ExecOptions{})
		if err != nil {
			t.Error(err)
		}
		ran <- r
	}()
	close(hold)
	if err := <-frozen; err != nil {
		t.Error(err)
	}
	if r := <-ran; r.ExitCode != 5 {
		t.Errorf("%+v", r)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.Network.Guest = func(context.Context, string, int) (net.Conn, error) {
		here, there := net.Pipe()
		t.Cleanup(func() { there.Close() })
		return here, nil
	}
	w.guest.run = func(context.Context, client.Command) (client.Result, error) { return client.Result{ExitCode: 5}, nil }
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	var open []*hostagent.Conn
	for range 512 {
		c, err := a.Dial(t.Context(), sb.ID, 80)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := a.Dial(t.Context(), sb.ID, 80); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("one more: %v", err)
	}
	if _, err := a.Exec(t.Context(), sb.ID, client.Command{Cmd: "true"}, hostagent.ExecOptions{}); err != nil {
		t.Errorf("a command has no room: %v", err)
	}
	open[0].Close()
	c, err := a.Dial(t.Context(), sb.ID, 80)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(open[1:], c) {
		c.Close()
	}
}
