package client_test

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
)

// nothing is an input that says nothing and does not end.
func nothing(t *testing.T) io.Reader {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	return r
}

// TestSteer gives commands input, sizes and signals from beside their streams.
func TestSteer(t *testing.T) {
	c := newHost(t).ready(t)
	run := func(cmd client.Command) (uint32, *text, <-chan outcome) {
		out := &text{}
		cmd.Stdout = out
		pid, ended := start(t, c, cmd)
		return pid, out, ended
	}
	piped := echo
	piped.Stdin = nothing(t)
	pid, out, ended := run(piped)
	long := strings.Repeat("x", 100_000)
	if err := c.Input(inTime(t), pid, []byte("one\n"+long+"\n"), false); err != nil {
		t.Error(err)
	}
	out.await(t, "got one\ngot "+long)
	if err := c.Resize(inTime(t), pid, client.Size{Cols: 1, Rows: 1}); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("the size of no terminal: %v", err)
	}
	if err := c.Input(inTime(t), pid, nil, true); err != nil {
		t.Error(err)
	}
	if o := <-ended; o.err != nil || o.res.ExitCode != 7 {
		t.Errorf("after its input ended: %+v", o)
	}

	pid, out, ended = run(client.Command{Cmd: "sh", Args: []string{"-c", "echo ready; read -r l; stty size; cat"}, PTY: &client.Size{Cols: 80, Rows: 24}})
	out.await(t, "ready")
	if err := c.Resize(inTime(t), pid, client.Size{Cols: 132, Rows: 43}); err != nil {
		t.Error(err)
	}
	if err := c.Input(inTime(t), pid, []byte("now\n"), true); err != nil {
		t.Error(err)
	}
	if o := <-ended; o.err != nil || o.res.ExitCode != 0 || !strings.Contains(out.String(), "43 132") {
		t.Errorf("the terminal: %+v, %q", o, out)
	}

	pid, _, ended = run(client.Command{Cmd: "sleep", Args: []string{"1000"}})
	if err := c.Input(inTime(t), pid, []byte("x"), false); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("input for a command that has none: %v", err)
	}
	if err := c.Signal(inTime(t), pid, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if o := <-ended; o.res.Signal != syscall.SIGTERM {
		t.Errorf("%+v", o)
	}
	none := uint32(1 << 30)
	for what, err := range map[string]error{"input": c.Input(inTime(t), none, []byte("x"), false), "its end": c.Input(inTime(t), none, nil, true),
		"a signal": c.Signal(inTime(t), none, syscall.SIGKILL), "a size": c.Resize(inTime(t), none, client.Size{})} {
		if !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s for no process: %v", what, err)
		}
	}
}
