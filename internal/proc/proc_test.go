package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// sleeper starts a process that waits to be killed.
func sleeper(t *testing.T) (*exec.Cmd, *Process) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p, err := FromChild(cmd.Process.Pid, fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return cmd, p
}

func TestWaitNoticesTheEnd(t *testing.T) {
	cmd, child := sleeper(t)
	other, err := Open(child.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if child.Ended() || other.Ended() {
		t.Fatal("a running process is said to have ended")
	}
	done := make(chan error, 2)
	for _, p := range []*Process{child, other} {
		go func() { done <- p.Wait() }()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if !child.Ended() || !other.Ended() {
		t.Error("an ended process is said to run")
	}
	_ = cmd.Wait()
	if status, ok := other.Status(); ok && (!status.Signaled() || status.Signal() != syscall.SIGKILL) {
		t.Errorf("status %#x, want SIGKILL", status)
	}
	if _, err := Open(child.PID); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Open of an ended process: %v, want ErrNotFound", err)
	}
	if _, err := StartTime(child.PID); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("StartTime of an ended process: %v, want ErrNotFound", err)
	}
}

func TestCloseEndsWait(t *testing.T) {
	_, p := sleeper(t)
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait = %v, want ErrClosed", err)
	}
	if p.Ended() {
		t.Error("a closed Process tells of an end")
	}
	if _, ok := p.Status(); ok {
		t.Error("a closed Process tells a status")
	}
}

func TestStartTimeTellsProcessesApart(t *testing.T) {
	_, p := sleeper(t)
	a, err := StartTime(p.PID)
	if err != nil || a == 0 {
		t.Fatal(a, err)
	}
	own, err := StartTime(os.Getpid())
	if err != nil || own > a {
		t.Errorf("this process began at %d, its child at %d: %v", own, a, err)
	}
	if id, err := BootID(); err != nil || len(id) != 36 {
		t.Errorf("boot id %q, %v", id, err)
	}
	if _, err := Open(-5); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Open(-5) = %v", err)
	}
}

func TestExecutableTellsProgramsApart(t *testing.T) {
	_, p := sleeper(t)
	other, err := Executable(p.PID)
	if err != nil || other == "" {
		t.Fatal(other, err)
	}
	own, err := Executable(os.Getpid())
	if err != nil || own == other {
		t.Errorf("this program is %q, its child %q: %v", own, other, err)
	}
	if _, err := Executable(1 << 22); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("no process: %v", err)
	}
}

func stat(name string, start int) string {
	return fmt.Sprintf("42 (%s) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 100 200\n", name, start)
}

func TestParseStat(t *testing.T) {
	for _, name := range []string{"sleep", "a b", "a) S 1 2 (", "))))", ""} {
		if got, err := parseStat([]byte(stat(name, 777))); err != nil || got != 777 {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
	for _, text := range []string{"", "42 (x", "42 (x) S 1", stat("x", -1), stat(strings.Repeat("x", maxStat), 1)} {
		if _, err := parseStat([]byte(text)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%.40q: %v, want ErrCorrupt", text, err)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(stat("sleep", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseStat(data); err != nil && !errors.Is(err, errs.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}
