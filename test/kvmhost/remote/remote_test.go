package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair connects a client to a server on this machine by a unix socket pair.
func pair(t *testing.T) *Client {
	t.Helper()
	here, there := socketPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = new(Server).Serve(ctx, there)
	}()
	c, err := NewClient(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		cancel()
		<-served
	})
	return c
}

// run runs a shell script to its end.
func run(t *testing.T, c *Client, script string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code, err := c.Run(t.Context(), Command{Args: []string{"sh", "-c", script}, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), errs.String()
}

func TestRun(t *testing.T) {
	c := pair(t)
	for _, tt := range []struct {
		name, script, stdout, stderr string
		code                         int
	}{
		{name: "streams apart and exit code", script: "echo out; echo err >&2; exit 7", stdout: "out\n", stderr: "err\n", code: 7},
		{name: "success", script: "true"},
		{name: "ended by a signal", script: "kill -TERM $$", code: 128 + 15},
		{name: "much output", script: "head -c 3000000 /dev/zero | tr '\\0' x | wc -c", stdout: "3000000\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := run(t, c, tt.script)
			if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

func TestRunPassesEverythingIn(t *testing.T) {
	var out bytes.Buffer
	code, err := pair(t).Run(t.Context(), Command{
		Args:   []string{"sh", "-c", `pwd; echo "$A"; echo "$1"; cat`, "sh", "two words; and 'quotes'"},
		Env:    []string{"A=b c"},
		Dir:    "/",
		Stdin:  strings.NewReader("from stdin"),
		Stdout: &out,
	})
	if err != nil || code != 0 {
		t.Fatal(code, err)
	}
	if want := "/\nb c\ntwo words; and 'quotes'\nfrom stdin"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestOpenStdinDoesNotHoldTheEnd(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	if code, err := pair(t).Run(t.Context(), Command{Args: []string{"true"}, Stdin: r}); code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

func TestWhatCannotRun(t *testing.T) {
	c := pair(t)
	for _, tt := range []struct {
		program string
		code    int
	}{{"no-such-program", ExitNotFound}, {"/no/such/program", ExitNotFound}, {"/etc/passwd", ExitNotRunnable}} {
		var errs bytes.Buffer
		code, err := c.Run(t.Context(), Command{Args: []string{tt.program}, Stderr: &errs})
		if err != nil || code != tt.code || !strings.Contains(errs.String(), tt.program) {
			t.Errorf("%s: code %d, %v, stderr %q", tt.program, code, err, errs.String())
		}
	}
	if code, err := c.Run(t.Context(), Command{}); err != nil || code != ExitNotRunnable {
		t.Errorf("an empty command: code %d, %v", code, err)
	}
	if _, err := c.Run(t.Context(), Command{Args: []string{"echo", strings.Repeat("x", maxCommand)}}); err == nil {
		t.Error("a command line over the limit ran")
	}
}

func TestSignalReachesTheCommand(t *testing.T) {
	signals := make(chan Signal)
	ready := make(writeChan, 16)
	done := make(chan int)
	c := pair(t)
	go func() {
		code, _ := c.Run(context.Background(), Command{Args: []string{"sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"},
			Stdout: ready, Signals: signals})
		done <- code
	}()
	<-ready
	signals <- "INT"
	if code := <-done; code != 9 {
		t.Errorf("code %d", code)
	}
}

type writeChan chan struct{}

func (w writeChan) Write(p []byte) (int, error) {
	w <- struct{}{}
	return len(p), nil
}

func TestCancelKillsTheWholeGroup(t *testing.T) {
	mark := t.TempDir() + "/alive"
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(writeChan, 16)
	c := pair(t)
	done := make(chan error)
	go func() {
		_, err := c.Run(ctx, Command{Args: []string{"sh", "-c", "(sleep 1000; touch " + mark + ") & echo ready; wait"}, Stdout: ready})
		done <- err
	}()
	<-ready
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestTerminal(t *testing.T) {
	resize := make(chan Size)
	var out lockedBuffer
	c := pair(t)
	term := &Terminal{Term: "xterm", Size: Size{Columns: 90, Rows: 30}, Resize: resize}
	done := make(chan int)
	go func() {
		code, _ := c.Run(context.Background(), Command{Args: []string{"sh", "-c",
			`test -t 0 && stty size && echo $TERM; until stty size | grep -q 100; do sleep 0.05; done; exit 3`}, Stdout: &out, Terminal: term})
		done <- code
	}()
	resize <- Size{Columns: 100, Rows: 40}
	if code := <-done; code != 3 {
		t.Errorf("code %d, output %q", code, out.String())
	}
	if got := out.String(); !strings.Contains(got, "xterm") {
		t.Errorf("output %q", got)
	}
}

func TestAStreamWithinTheStream(t *testing.T) {
	outer := pair(t)
	stream, err := outer.Open()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := NewClient(t.Context(), Conn(stream))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	if code, stdout, _ := run(t, inner, "echo inner; exit 4"); code != 4 || stdout != "inner\n" {
		t.Errorf("code %d, stdout %q", code, stdout)
	}
}

func TestTheStreamEnds(t *testing.T) {
	c := pair(t)
	ready := make(writeChan, 16)
	go func() {
		<-ready
		_ = c.Close()
	}()
	if _, err := c.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo ready; sleep 1000"}, Stdout: ready}); !errors.Is(err, ErrGone) {
		t.Errorf("err = %v", err)
	}
	if _, err := c.Run(t.Context(), Command{Args: []string{"true"}}); !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := c.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("open after the end: %v", err)
	}
}

func TestNewClientGivesUpWithItsContext(t *testing.T) {
	here, there := socketPair(t)
	defer there.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(ctx, here); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func TestExitCodeOfAHeldOutput(t *testing.T) {
	s := &session{ch: discard{}}
	if code := s.exitCode(exec.ErrWaitDelay); code != 0 {
		t.Errorf("code %d", code)
	}
	if code := s.exitCode(os.ErrNotExist); code != ExitNotFound {
		t.Errorf("code %d", code)
	}
}
