//go:build hosttest

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/sandbox"
)

// TestAPagerStreamsAllInAndLeaves has the whole memory of a sandbox come in, after which its pager is gone and the sandbox is not: it answers,
// is adopted, and is paused and resumed with what it holds.
func TestAPagerStreamsAllInAndLeaves(t *testing.T) {
	nothingLeft(t)
	b := create(t, here(t), sandbox.Spec{Template: "base", Keep: true, Stream: true})
	s := b.follow(0)
	counted := s.next()
	for round := range 2 {
		awaitPagersEnd(t, b.id)
		if round == 0 {
			b.Leave()
			sb, err := b.parts.Manager.Adopt(t.Context(), b.id)
			if err != nil {
				t.Fatal(err)
			}
			b.Sandbox = sb
		}
		s = b.follow(s.pid)
		if n := s.next(); n <= counted {
			t.Errorf("it goes on with %d, and was at %d", n, counted)
		}
		kept := b.ask("kept")[0]
		s.cut()
		b.pause()
		b.resume()
		if got := b.ask("kept")[0]; got != kept {
			t.Errorf("its memory is %s, and was %s", got, kept)
		}
	}
}

// awaitPagersEnd returns when no process is in the pager's group of a sandbox.
func awaitPagersEnd(t *testing.T, id string) {
	t.Helper()
	procs := filepath.Join("/sys/fs/cgroup/wrenn-pager", id, "cgroup.procs")
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(procs)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(b)) == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the pager of %s has not left", id)
		}
	}
}
