package cli

import (
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	guest "wrenn.dev/wrenn/internal/guest/client"
)

// typist is a person at a terminal, who waits for a text before each of what is typed.
type typist struct {
	t      *testing.T
	screen *os.File
	seen   string
}

// until reads what is shown until it has a text, and forgets it.
func (p *typist) until(text string) {
	buf := make([]byte, 4096)
	for !strings.Contains(p.seen, text) {
		_ = p.screen.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := p.screen.Read(buf)
		if p.seen += string(buf[:n]); err != nil {
			p.t.Errorf("%q does not come, but %q: %v", text, p.seen, err)
			return
		}
	}
	_, p.seen, _ = strings.Cut(p.seen, text)
}

func (p *typist) types(text string) {
	if _, err := io.WriteString(p.screen, text); err != nil {
		p.t.Error(err)
	}
}

// TestATerminal: it has the caller's size and type, what is typed reaches the command, and the exit code comes back; whoever is asked.
func TestATerminal(t *testing.T) {
	for way, choose := range ways {
		t.Run(way, func(t *testing.T) {
			choose(t, newWorld(t))
			t.Setenv("TERM", "vt220")
			id := made(t)
			screen, tty, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer screen.Close()
			defer tty.Close()
			if err := pty.Setsize(screen, &pty.Winsize{Rows: 31, Cols: 97}); err != nil {
				t.Fatal(err)
			}
			code := make(chan int, 1)
			go func() {
				code <- execute(t.Context(), []string{"exec", "-it", "--env", "A=a b", id, "--", "sh", "-c",
					`trap 'stty size' WINCH; stty size; echo "$TERM $A"; read x; echo "got $x"; while [ ! -e stop ]; do sleep 0.02; done; rm stop; exit 5`}, streams{in: tty, out: tty, err: tty})
			}()
			p := &typist{t: t, screen: screen}
			p.until("31 97")
			p.until("vt220 a b")
			p.types("hello\r")
			p.until("got hello")
			if err := pty.Setsize(screen, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // a terminal of its own would have told
				t.Fatal(err)
			}
			p.until("40 120")
			if code, _, errOut := wrenn(t, "", "exec", id, "--", "touch", "stop"); code != 0 {
				t.Error(code, errOut)
			}
			if got := <-code; got != 5 {
				t.Errorf("exit code %d, %q", got, p.seen)
			}
			if got := execute(t.Context(), []string{"exec", "-it", "--timeout", "200ms", id, "--", "sleep", "100"}, streams{in: tty, out: tty, err: tty}); got != exitTimeout {
				t.Errorf("after the timeout the exit code is %d", got)
			}
		})
	}
}

// TestASignalReachesTheCommand: the first Ctrl-C is SIGTERM to it, and its caller's end is its own.
func TestASignalReachesTheCommand(t *testing.T) {
	w := newWorld(t)
	for way, choose := range ways {
		t.Run(way, func(t *testing.T) {
			choose(t, w)
			id := made(t)
			cmd := mustFind(newRoot(streams{}), "exec")
			cmd.SetContext(t.Context())
			r, err := findRemote(cmd)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			signals := make(chan syscall.Signal, 1)
			out := &printed{}
			ready := regexp.MustCompile("ready")
			done := make(chan guest.Result, 1)
			go func() {
				result, err := r.exec(t.Context(), id, guest.Command{Cmd: "sh", Args: []string{"-c", `trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done`},
					Stdout: out, Signals: signals})
				if err != nil {
					t.Error(err)
				}
				done <- result
			}()
			for deadline := time.Now().Add(20 * time.Second); !ready.MatchString(out.String()) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			}
			signals <- syscall.SIGTERM
			if result := <-done; result.ExitCode != 9 {
				t.Errorf("%+v", result)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := r.exec(ctx, id, guest.Command{Cmd: "sleep", Args: []string{"100"}}); err == nil {
				t.Error("it is said to have ended although it was left")
			}
		})
	}
}
