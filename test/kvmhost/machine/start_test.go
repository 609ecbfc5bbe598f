package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fakeTree makes a tree of tools whose QEMU is a shell script. It has the heartbeat on descriptor 3 and the monitor on 5.
func fakeTree(t *testing.T, script string) string {
	t.Helper()
	tree := t.TempDir()
	for path, content := range map[string]string{
		"usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": "#!/bin/bash\n" + script,
		"usr/bin/qemu-system-x86_64":                    "",
	} {
		full := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// greet is what a fake QEMU does first.
const greet = `echo '` + greeting + `' >&5; read -u 5 request; echo '{"return": {}}' >&5
`

func TestStartAndStop(t *testing.T) {
	m, err := Start(t.Context(), Config{Tools: fakeTree(t, greet+`echo hello; head -c 1 <&3 >&3; exec sleep 1000`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.Err(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	for range 2 {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	}
	<-m.Done()
	if err := m.Err(); err != nil {
		t.Errorf("after Stop: %v", err)
	}
	if got := m.Console(); got != "hello" {
		t.Errorf("console %q", got)
	}
}

// TestStopWithAChild has a process that outlives QEMU and holds its output.
func TestStopWithAChild(t *testing.T) {
	m, err := Start(t.Context(), Config{Tools: fakeTree(t, greet+`sleep 1000 & head -c 1 <&3 >&3; wait`)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-m.Pid(), syscall.SIGKILL) }) // the group is the child's alone by now
	if err := m.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
}

func TestDeathIsALoss(t *testing.T) {
	m, err := Start(t.Context(), Config{Tools: fakeTree(t, greet+`echo "Kernel panic"; exit 3`)})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Ready(t.Context())
	var lost *Lost
	if !errors.As(err, &lost) || !strings.Contains(lost.Log, "Kernel panic") || !strings.Contains(lost.Reason, "3") {
		t.Errorf("err = %v, console %q", err, m.Console())
	}
	if err := m.Stop(); err != nil {
		t.Error(err)
	}
	if !errors.As(m.Err(), &lost) {
		t.Error("Stop made the loss undone")
	}
}

func TestKillIsALoss(t *testing.T) {
	m, err := Start(t.Context(), Config{Tools: fakeTree(t, greet+`exec sleep 1000`)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(m.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	var lost *Lost
	if !errors.As(m.Err(), &lost) || !strings.Contains(lost.Reason, "killed") {
		t.Errorf("err = %v", m.Err())
	}
}

func TestQEMUThatDoesNotStart(t *testing.T) {
	_, err := Start(t.Context(), Config{Tools: fakeTree(t, `echo "no such machine" >&2; exit 1`)})
	if err == nil || !strings.Contains(err.Error(), "no such machine") {
		t.Errorf("err = %v", err)
	}
	if _, err := Start(t.Context(), Config{Tools: t.TempDir()}); err == nil {
		t.Error("a tree without QEMU: no error")
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, Config{Tools: fakeTree(t, `exec sleep 1000`)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func TestReadyGivesUpWithItsContext(t *testing.T) {
	m, err := Start(t.Context(), Config{Tools: fakeTree(t, greet+`exec sleep 1000`)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}
