package cgroup

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// Usage is what the processes of a group take.
type Usage struct {
	// CPU is the time that they have used, in all, since the group was made.
	CPU time.Duration
	// MemoryBytes is what they have now, page cache included, of at most MemoryMaxBytes; 0 is no limit.
	MemoryBytes, MemoryMaxBytes int64
}

// Usage returns what the group takes. ErrNotFound when there is no group.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	stat, err := read(g.dir, "cpu.stat")
	if err == nil {
		u.CPU = time.Duration(counter(stat, "usage_usec")) * time.Microsecond
		u.MemoryBytes, err = g.number("memory.current")
	}
	if err == nil {
		u.MemoryMaxBytes, err = g.number("memory.max")
	}
	if gone(err) {
		return Usage{}, fmt.Errorf("cgroup %s: %w", filepath.Base(g.dir), errs.ErrNotFound)
	}
	return u, err
}

// number reads a file that has one number, or "max": that is 0.
func (g *Group) number(name string) (int64, error) {
	data, err := read(g.dir, name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(data)
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseInt(text, 10, 64)
}
