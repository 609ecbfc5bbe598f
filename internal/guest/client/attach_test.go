package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
)

// text is a writer that a test reads while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// await waits until the text contains a part.
func (w *text) await(t *testing.T, part string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(w.String(), part); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %q, want %q", w.String(), part)
		}
	}
}

// outcome is what a command's call returned.
type outcome struct {
	res client.Result
	err error
}

// echo is a shell that repeats its lines until it gets the line "end".
var echo = client.Command{Cmd: "sh", Args: []string{"-c", `while read -r l && [ "$l" != end ]; do echo "got $l"; done; exit 7`}}

// start runs a command on its own and waits for its pid.
func start(t *testing.T, c *client.Client, cmd client.Command) (pid uint32, end <-chan outcome) {
	t.Helper()
	pids, ended := make(chan uint32, 1), make(chan outcome, 1)
	cmd.Started = func(pid uint32) { pids <- pid }
	go func() {
		res, err := c.Run(inTime(t), cmd)
		ended <- outcome{res, err}
	}()
	select {
	case pid = <-pids:
	case o := <-ended:
		t.Fatalf("it ended: %+v", o)
	}
	return pid, ended
}

// TestAttachAfterAStart is what the host does with a command that runs when a sandbox is frozen and starts again: its stream ends, the
// command does not, and is joined again.
func TestAttachAfterAStart(t *testing.T) {
	h := newHost(t)
	old := h.ready(t)
	in, feed := io.Pipe()
	defer feed.Close()
	cmd, out := echo, &text{}
	cmd.Stdin, cmd.Stdout = in, out
	pid, ended := start(t, old, cmd)
	if _, err := io.WriteString(feed, "one\n"); err != nil {
		t.Fatal(err)
	}
	out.await(t, "got one")
	if err := old.Quiesce(inTime(t)); err != nil {
		t.Fatal(err)
	}
	h.set(secondToken, "b")
	c := h.client(t, secondToken)
	if _, err := c.WaitAwake(inTime(t)); err != nil {
		t.Fatal(err)
	}
	if o := <-ended; !errors.Is(o.err, errs.ErrUnavailable) {
		t.Errorf("the stream of before: got %+v, %v", o.res, o.err)
	}
	list, err := c.List(inTime(t))
	if err != nil || len(list) != 1 || list[0].PID != pid || list[0].Cmd != "sh" || len(list[0].Args) != 2 {
		t.Fatalf("got %+v, %v", list, err)
	}
	var again uint32
	after := &text{}
	res, err := c.Attach(inTime(t), pid, client.Command{Stdin: strings.NewReader("two\nend\n"), Stdout: after,
		Started: func(pid uint32) { again = pid }})
	if err != nil || res.ExitCode != 7 || after.String() != "got two\n" || again != pid {
		t.Errorf("got %+v, %v, %q, pid %d", res, err, after, again)
	}
	// And once more, after its end.
	if res, err := c.Attach(inTime(t), pid, client.Command{}); err != nil || res.ExitCode != 7 {
		t.Errorf("after the end: got %+v, %v", res, err)
	}
}

// TestLetGo shows that what Attach did not start it does not end, whatever ends it.
func TestLetGo(t *testing.T) {
	h := newHost(t)
	c := h.ready(t)
	in, feed := io.Pipe()
	defer feed.Close()
	cmd, out := echo, &text{}
	cmd.Stdin, cmd.Stdout = in, out
	pid, ended := start(t, c, cmd)

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := c.Attach(ctx, pid, client.Command{Started: func(uint32) { cancel(cause) }})
	if !errors.Is(err, cause) {
		t.Errorf("an attachment whose context ended: got %v", err)
	}
	full := errors.New("full")
	failing := make(chan error, 1)
	joined := make(chan struct{})
	go func() {
		_, err := c.Attach(inTime(t), pid, client.Command{Stdout: failingWriter{full}, Started: func(uint32) { close(joined) }})
		failing <- err
	}()
	<-joined
	if _, err := io.WriteString(feed, "one\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-failing; !errors.Is(err, full) {
		t.Errorf("an attachment whose writer failed: got %v", err)
	}
	if _, err := io.WriteString(feed, "two\nend\n"); err != nil {
		t.Fatal(err)
	}
	if o := <-ended; o.err != nil || o.res.ExitCode != 7 || out.String() != "got one\ngot two\n" {
		t.Errorf("the command: got %+v, %q", o, out)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestAttachSteers sends a signal and a terminal's size and input.
func TestAttachSteers(t *testing.T) {
	h := newHost(t)
	c := h.ready(t)
	out := &text{}
	pid, ended := start(t, c, client.Command{Cmd: "sh", PTY: &client.Size{Cols: 80, Rows: 24},
		Args: []string{"-c", `trap 'stty size' WINCH; trap 'exit 3' TERM; while :; do read -r l; echo "got $l"; done`}})
	signals, sizes := make(chan syscall.Signal), make(chan client.Size)
	in, feed := io.Pipe()
	defer feed.Close()
	attached := make(chan outcome, 1)
	go func() {
		res, err := c.Attach(inTime(t), pid, client.Command{PTY: &client.Size{}, Stdin: in, Stdout: out, Signals: signals, Resize: sizes})
		attached <- outcome{res, err}
	}()
	if _, err := io.WriteString(feed, "hello\n"); err != nil {
		t.Fatal(err)
	}
	out.await(t, "got hello")
	sizes <- client.Size{Cols: 132, Rows: 50}
	out.await(t, "50 132")
	signals <- syscall.SIGTERM
	if _, err := io.WriteString(feed, "\n"); err != nil { // a shell that reads acts on the signal after the line
		t.Fatal(err)
	}
	for _, end := range []<-chan outcome{ended, attached} {
		if o := <-end; o.err != nil || o.res.ExitCode != 3 {
			t.Errorf("got %+v", o)
		}
	}
}

func TestAttachToNobody(t *testing.T) {
	c := newHost(t).ready(t)
	for _, pid := range []uint32{1 << 22, 1 << 31, 0} {
		if _, err := c.Attach(inTime(t), pid, client.Command{}); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("pid %d: got %v", pid, err)
		}
	}
}
