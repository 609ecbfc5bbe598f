//go:build hosttest

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
)

const (
	helperState   = "WRENN_TEST_STATE"
	helperSandbox = "WRENN_TEST_SANDBOX"
)

// TestHelperLivesALife is the process that the tests below end: it takes a slot and gives it back.
func TestHelperLivesALife(t *testing.T) {
	if os.Getenv(helperState) == "" {
		return
	}
	d, err := New(Config{StateDir: os.Getenv(helperState)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, sandbox := context.Background(), os.Getenv(helperSandbox)
	if _, err := d.Acquire(ctx, sandbox, network.Policy{Internet: true}, uid); err != nil {
		fmt.Println("acquire:", err)
		os.Exit(3)
	}
	if err := d.Release(ctx, sandbox); err != nil {
		fmt.Println("release:", err)
		os.Exit(4)
	}
}

// live runs the helper with a failpoint set and returns its exit code, -1 when it was killed, and what it said.
func live(t *testing.T, stateDir, sandbox, point, action string) (int, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperLivesALife$")
	cmd.Env = append(os.Environ(), helperState+"="+stateDir, helperSandbox+"="+sandbox, failpoint.Env+"="+point+"="+action)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() && s.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", s.Signal(), out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestKillAtEveryStep ends a process with SIGKILL at each step; a release by another leaves nothing, as often as it is done.
func TestKillAtEveryStep(t *testing.T) {
	for _, point := range Failpoints() {
		t.Run(point, func(t *testing.T) {
			newWorld(t)
			d := newDriver(t, Config{})
			sandbox := id.New()
			if code, out := live(t, d.stateDir, sandbox, point, "kill"); code != -1 {
				t.Fatalf("not killed at %s: exit code %d\n%s", point, code, out)
			}
			ids, err := d.List(t.Context())
			if err != nil || len(ids) != 1 || ids[0] != sandbox {
				t.Fatalf("List = %v, %v; want %s", ids, err, sandbox)
			}
			// The slot is not given away before it is swept, and another sandbox is not disturbed by that.
			other, s := acquire(t, d, network.Policy{Internet: true})
			if s.Index == 0 {
				t.Error("the dead one's slot was given away")
			}
			for range 2 {
				release(t, d, sandbox)
			}
			reaches(t, newGuest(t, other, s), public[0])
			release(t, d, other)
			if err := d.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailureAtEveryStep makes each step fail instead: the error names it, and a start has undone what it made.
func TestFailureAtEveryStep(t *testing.T) {
	for _, point := range Failpoints() {
		t.Run(point, func(t *testing.T) {
			newWorld(t)
			d := newDriver(t, Config{})
			sandbox := id.New()
			code, out := live(t, d.stateDir, sandbox, point, "error")
			want := 3
			if strings.HasSuffix(point, "-gone") {
				want = 4
			}
			if code != want || !strings.Contains(out, point) {
				t.Errorf("exit code %d, want %d\n%s", code, want, out)
			}
			if want == 4 {
				release(t, d, sandbox)
			}
		})
	}
}
