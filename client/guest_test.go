package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/client"
)

func TestFiles(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	files := create(t, c, client.CreateOptions{}).Files()
	long := bytes.Repeat([]byte("0123456789abcdef"), 500_000)
	if n, err := files.Write(ctx, "dir/long", io.MultiReader(bytes.NewReader(long)), client.Mode(0o750)); err != nil || n != int64(len(long)) {
		t.Fatal(n, err)
	}
	if _, err := files.Write(ctx, "dir/short", strings.NewReader("short")); err != nil {
		t.Fatal(err)
	}
	st, err := files.Stat(ctx, "dir/long")
	if err != nil || st.Size != int64(len(long)) || st.Mode != 0o750 || st.Type != client.RegularFile || st.Name != "long" || st.Inexact || time.Since(st.ModifiedAt) > time.Hour {
		t.Errorf("%+v, %v", st, err)
	}
	read := func(r io.ReadCloser, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := read(files.Read(ctx, "dir/long")); got != string(long) {
		t.Errorf("%d bytes came back of %d", len(got), len(long))
	}
	if got := read(files.ReadRange(ctx, "dir/short", 1, 3)); got != "hor" {
		t.Errorf("%q", got)
	}
	if _, err := files.ReadRange(ctx, "dir/short", 100, 1); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	if err := errors.Join(files.Mkdir(ctx, "dir/below"), files.Move(ctx, "dir/short", "dir/below/moved")); err != nil {
		t.Error(err)
	}
	if err := files.Mkdir(ctx, "dir"); !errors.Is(err, client.ErrAlreadyExists) {
		t.Error(err)
	}
	list, err := files.List(ctx, "dir", 2)
	if err != nil || len(list) != 3 || list[0].Type != client.Directory && list[1].Type != client.Directory {
		t.Errorf("%+v, %v", list, err)
	}
	if err := files.Remove(ctx, "dir"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{second(files.Stat(ctx, "dir")), second(files.Read(ctx, "dir/long")), second(files.List(ctx, "dir", 1))} {
		if !errors.Is(err, client.ErrNotFound) {
			t.Error(err)
		}
	}
	if _, err := files.As("nobody-here").Stat(ctx, "."); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	if _, err := files.Write(ctx, "cut", io.MultiReader(strings.NewReader("some"), broken{})); !errors.Is(err, errCut) {
		t.Error(err)
	}
	if _, err := files.Stat(ctx, "cut"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("half a file is there: %v", err)
	}
	if _, err := c.Sandboxes.Of(someone).Files().Write(ctx, "x", forever{}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("what has no end to a sandbox that is not there: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// broken is what can't be read.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errCut }

func TestWatch(t *testing.T) {
	c := newClient(t, newWorld(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	files := create(t, c, client.CreateOptions{}).Files()
	if _, err := files.Watch(ctx, "none", false); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	if err := files.Mkdir(ctx, "dir"); err != nil {
		t.Fatal(err)
	}
	changes, err := files.Watch(ctx, "dir", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.Write(ctx, "dir/one", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for change, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		if change.Name == "one" && change.Change == client.FileCreated || strings.Contains(change.Name, "one") && change.Change == client.FileRenamed {
			break
		}
	}
	if changes, err = files.Watch(ctx, "dir", false); err != nil {
		t.Fatal(err)
	}
	if err := files.Remove(ctx, "dir"); err != nil {
		t.Fatal(err)
	}
	var last error
	for _, err := range changes {
		last = err
	}
	if !errors.Is(last, client.ErrNotFound) {
		t.Errorf("the folder is gone, and the end is %v", last)
	}
}

func TestProcesses(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	sb := create(t, c, client.CreateOptions{})
	pid, err := sb.StartBackground(ctx, client.Background{Command: client.Command{Cmd: "sh", Args: []string{"-c", `read x; echo "got $x $A"; exit 3`}, Env: map[string]string{"A": "b"}}, Input: true})
	if err != nil {
		t.Fatal(err)
	}
	list, err := sb.Processes(ctx)
	if err != nil || len(list) != 1 || list[0].PID != pid || list[0].Cmd != "sh" {
		t.Errorf("%+v, %v", list, err)
	}
	var out bytes.Buffer
	p, err := sb.Follow(ctx, pid, &out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.WriteStdin(ctx, pid, []byte("it\n"), false); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 3 || out.String() != "got it b\n" {
		t.Errorf("%+v, %q, %v", exit, out.String(), err)
	}
	pid, err = sb.StartBackground(ctx, client.Background{Command: client.Command{Cmd: "sleep", Args: []string{"100"}}, Terminal: &client.TerminalSize{Cols: 80, Rows: 24}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.Resize(ctx, pid, client.TerminalSize{Cols: 100, Rows: 30}); err != nil {
		t.Error(err)
	}
	if err := sb.Signal(ctx, pid, syscall.SIGHUP); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	left, err := sb.Follow(ctx, pid, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	left.Close() // the command goes on
	if p, err = sb.Follow(ctx, pid, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := sb.Signal(ctx, pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := sb.Signal(ctx, pid, syscall.SIGKILL); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
}

// TestInputOfAnyLength goes in as it comes, and output comes back at the same time.
func TestInputOfAnyLength(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	sb := create(t, c, client.CreateOptions{})
	long := strings.Repeat("x", 3<<20)
	var out strings.Builder
	p, err := sb.Start(ctx, client.Command{Cmd: "cat", Stdin: strings.NewReader(long), Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 || out.String() != long {
		t.Errorf("%+v, %d bytes, %v", exit, out.Len(), err)
	}
	if p, err = sb.Start(ctx, client.Command{Cmd: "head", Args: []string{"-c", "1"}, Stdin: forever{}}); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("a command that wants no more input: %+v, %v", exit, err)
	}
}

func TestTerminal(t *testing.T) {
	c := newClient(t, newWorld(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sb := create(t, c, client.CreateOptions{})
	term, err := sb.OpenTerminal(ctx, client.TerminalOptions{Cmd: "sh", Args: []string{"-c", "stty size; read x; stty size; exit 6"}, Size: client.TerminalSize{Cols: 90, Rows: 20}})
	if err != nil || term.PID == 0 {
		t.Fatal(term, err)
	}
	defer term.Close()
	buf := make([]byte, 7) // less than a message has
	if n, err := io.ReadFull(term, buf); err != nil || string(buf[:n]) != "20 90\r\n" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := term.Exit(); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := term.Resize(client.TerminalSize{Cols: 100, Rows: 30}); err != nil {
		t.Error(err)
	}
	if _, err := io.WriteString(term, "\r"); err != nil {
		t.Error(err)
	}
	rest, err := io.ReadAll(term)
	if exit, eerr := term.Exit(); err != nil || eerr != nil || exit.Code != 6 || !strings.HasSuffix(string(rest), "30 100\r\n") {
		t.Errorf("%q, %+v, %v, %v", rest, exit, err, eerr)
	}
	pid, err := sb.StartBackground(ctx, client.Background{Command: client.Command{Cmd: "sleep", Args: []string{"100"}}, Terminal: &client.TerminalSize{Cols: 80, Rows: 24}})
	if err != nil {
		t.Fatal(err)
	}
	joined, err := sb.OpenTerminal(ctx, client.TerminalOptions{PID: pid})
	if err != nil || joined.PID != pid {
		t.Fatal(joined, err)
	}
	if err := joined.Close(); err != nil {
		t.Error(err)
	}
	if list, err := sb.Processes(ctx); err != nil || len(list) != 1 {
		t.Errorf("one that was joined and left: %v, %v", list, err)
	}
	for what, o := range map[string]struct {
		sb   *client.Sandbox
		o    client.TerminalOptions
		kind error
	}{
		"no sandbox": {c.Sandboxes.Of(someone), client.TerminalOptions{}, client.ErrNotFound}, "no process": {sb, client.TerminalOptions{PID: 4_000_000}, client.ErrNotFound},
		"no program": {sb, client.TerminalOptions{Cmd: "/none"}, client.ErrInvalid}, "no size": {sb, client.TerminalOptions{Size: client.TerminalSize{Cols: 100_000}}, client.ErrInvalid},
	} {
		if _, err := o.sb.OpenTerminal(ctx, o.o); !errors.Is(err, o.kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
