package failpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The environment is read once at a process's start, so each test runs this binary again as a process that reaches a point.
const pointEnv = "FAILPOINT_TEST_POINT"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(pointEnv); ok {
		fmt.Print(reach(name))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// reach says in a few words what happens at a point.
func reach(name string) string {
	why := errors.New("it was enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	switch err := Here(ctx, Point{name}); {
	case err == nil:
		return "nothing"
	case errors.Is(err, why):
		return "slept"
	case errors.Is(err, ErrInjected):
		return "injected: " + err.Error()
	default:
		return err.Error()
	}
}

// again runs this binary as a process that reaches a point.
func again(t *testing.T, env, point string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	// The race detector would wait a second at each end.
	cmd.Env = append(os.Environ(), Env+"="+env, pointEnv+"="+point, "GORACE=atexit_sleep_ms=0")
	return cmd.CombinedOutput()
}

func TestPoints(t *testing.T) {
	for _, c := range []struct{ env, point, want string }{
		{"", "a.b", "nothing"},
		{"a.b=error", "a.c", "nothing"},
		{"=error", "a.b", "nothing"},
		{"a.b=error", "a.b", "injected: failpoint a.b: injected failure"},
		{"a.b=sleep", "a.b", "slept"},
		{"a.b=sleep", "a.c", "nothing"},
		{"a.b", "a.b", `WRENN_FAILPOINT: unknown action "none"; want kill, error or sleep`},
		{"a.b=panic", "a.b", `WRENN_FAILPOINT: unknown action "panic"; want kill, error or sleep`},
		{"a.b=error=kill", "a.b", `WRENN_FAILPOINT: unknown action "error=kill"; want kill, error or sleep`},
		{"a.b=kill", "a.c", "nothing"},
		{"a.b#1=error", "a.b", "injected: failpoint a.b: injected failure"},
		{"a.b#2=error", "a.b", "nothing"},
		{"a.b#x=error", "a.b", "nothing"},
	} {
		out, err := again(t, c.env, c.point)
		if err != nil || string(out) != c.want {
			t.Errorf("%q at %q: %s, %v; want %s", c.env, c.point, out, err, c.want)
		}
	}
}

// TestKill ends the process by a signal that nothing can catch.
func TestKill(t *testing.T) {
	out, err := again(t, "a.b=kill", "a.b")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || len(out) > 0 {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestNothingIsSetHere: a process without the variable passes every point.
func TestNothingIsSetHere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"", "a", strings.Repeat("a", 1000)} {
		if err := Here(ctx, Point{name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestAFolderIsFollowed: what is armed may change, the times are counted from then on, and what is passed is told.
func TestAFolderIsFollowed(t *testing.T) {
	dir, one, other := t.TempDir(), Point{"test.one"}, Point{"test.other"}
	state.dir, state.active = dir, true
	t.Cleanup(func() { state.dir, state.armed, state.active = "", "", false })
	arm := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, ArmedName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pass := func(p Point, fails bool) {
		t.Helper()
		if err := Here(t.Context(), p); errors.Is(err, ErrInjected) != fails || err != nil && !fails {
			t.Errorf("%s: %v", p, err)
		}
	}
	pass(one, false)
	arm("test.one#2=error\n")
	pass(one, false)
	pass(other, false)
	pass(one, true)
	pass(one, false)
	arm("test.other=error")
	pass(one, false)
	pass(other, true)
	arm("test.one#2=error\n")
	pass(one, false)
	pass(one, true)
	passed, err := os.ReadFile(filepath.Join(dir, PassedName))
	want := "test.one\ntest.one\ntest.other\ntest.one\ntest.one\ntest.one\ntest.other\ntest.one\ntest.one\n"
	if err != nil || string(passed) != want {
		t.Errorf("passed: %q, %v", passed, err)
	}
	state.dir = filepath.Join(dir, "gone")
	if err := Here(t.Context(), one); err == nil {
		t.Error("a folder that is not there is no error")
	}
}

// TestNamesAreGivenOnce: two steps of one name would leave one of them untested.
func TestNamesAreGivenOnce(t *testing.T) {
	t.Cleanup(func() { points = nil })
	p := New("test.step")
	if list := All(); !slices.Equal(list, []string{"test.step"}) || !slices.Equal(Names(p, p), []string{p.String(), p.String()}) {
		t.Errorf("%v", list)
	}
	for _, name := range []string{"test.step", "", "step", "test.a=b", "test.a#2", "test.a\n"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was accepted", name)
				}
			}()
			New(name)
		}()
	}
}
