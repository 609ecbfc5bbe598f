package cgroup

import (
	"errors"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// TestUsage reads the files as the kernel writes them.
func TestUsage(t *testing.T) {
	parent := New(t.TempDir(), Machines)
	g := parent.Get("one")
	if _, err := g.Usage(); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of no group: %v", err)
	}
	for _, limit := range []string{"1048576\n", "max\n"} {
		files(t, g.dir, map[string]string{"cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n", "memory.current": "4096\n", "memory.max": limit})
		want := Usage{CPU: 1500 * time.Microsecond, MemoryBytes: 4096}
		if limit != "max\n" {
			want.MemoryMaxBytes = 1 << 20
		}
		if got, err := g.Usage(); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	files(t, g.dir, map[string]string{"memory.current": "much"})
	if _, err := g.Usage(); err == nil || errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of what is no number: %v", err)
	}
}
