// Package cgroup puts a process that serves one sandbox into a cgroup of its own, with limits, under a parent of ours: the machines'
// or the pagers'.
//
// A process is born in its group (clone3 with the group's descriptor), so there is no moment at which it runs without its
// limits, and none at which killing the group would miss it.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/inotify"
)

const (
	// DefaultRoot is where the unified hierarchy is mounted.
	DefaultRoot = "/sys/fs/cgroup"
	// Machines is the group that all machines' groups are in.
	Machines = "wrenn"
	// Pagers is the group that all their page-fault servers' groups are in.
	Pagers = "wrenn-pager"
	// cpuPeriod is the period of cpu.max, in microseconds.
	cpuPeriod = 100_000
	// maxFile bounds what is read of a group's file.
	maxFile = 64 << 10
	// tries bounds how often Create starts over because another process changed the parent meanwhile.
	tries = 10
)

var controllers = []string{"cpu", "memory", "pids"}

// Limits bound what the processes of a group may take from the host.
type Limits struct {
	// MemoryMaxBytes is memory.max, 0 for no limit.
	MemoryMaxBytes int64
	// CPUQuota is how many CPUs the group may use (cpu.max over a period of 100 ms), 0 for no limit.
	CPUQuota float64
	// PIDsMax is pids.max: threads included.
	PIDsMax int
}

// Parent is a group of groups, Machines or Pagers.
type Parent struct{ root, name string }

// New returns the parent of that name below a mounted unified hierarchy. It makes nothing.
func New(root, name string) *Parent { return &Parent{root, name} }

func (p *Parent) dir() string { return filepath.Join(p.root, p.name) }

// Get returns the group of an id, which need not exist.
func (p *Parent) Get(id string) *Group { return &Group{filepath.Join(p.dir(), id)} }

// Create makes the group of an id with its limits. When it fails, no group of the id is left by it.
//
// Errors: ErrAlreadyExists when there is one, ErrFailedPrecondition when the host has no unified hierarchy or lacks a
// controller.
func (p *Parent) Create(id string, limits Limits) (*Group, error) {
	for try := 1; ; try++ {
		g, err := p.create(id, limits)
		// Another process may have removed the parent while it was empty, or made it anew without its controllers yet.
		if err == nil || !errors.Is(err, fs.ErrNotExist) || try == tries {
			return g, err
		}
	}
}

func (p *Parent) create(id string, limits Limits) (*Group, error) {
	if err := p.prepare(); err != nil {
		return nil, err
	}
	g := p.Get(id)
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cgroup %s: %w", g.dir, errs.ErrAlreadyExists)
		}
		return nil, err
	}
	if err := g.setUp(limits); err != nil {
		return nil, errors.Join(err, unix.Rmdir(g.dir))
	}
	return g, nil
}

// prepare makes the parent and turns the controllers on for what is in it.
func (p *Parent) prepare() error {
	have, err := read(p.root, "cgroup.controllers")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is no unified cgroup hierarchy; boot with systemd.unified_cgroup_hierarchy=1: %w",
			p.root, errs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(have), c) {
			return fmt.Errorf("cgroup controller %s is not there: %w", c, errs.ErrFailedPrecondition)
		}
	}
	if err := os.Mkdir(p.dir(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return errors.Join(enable(p.root), enable(p.dir()))
}

// enable turns the missing controllers on for the groups inside dir.
func enable(dir string) error {
	on, err := read(dir, "cgroup.subtree_control")
	if err != nil {
		return err
	}
	for _, c := range controllers {
		if slices.Contains(strings.Fields(on), c) {
			continue
		}
		if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return err
		}
	}
	return nil
}

// List returns the ids that have a group.
func (p *Parent) List() ([]string, error) {
	entries, err := os.ReadDir(p.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Tidy removes the parent if nothing is in it.
func (p *Parent) Tidy() error {
	err := unix.Rmdir(p.dir())
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return fmt.Errorf("remove %s: %w", p.dir(), err)
}

// Group is the cgroup of one machine.
type Group struct{ dir string }

// setUp makes sure that the group can be killed as a whole, and writes its limits.
func (g *Group) setUp(l Limits) error {
	if _, err := os.Stat(filepath.Join(g.dir, "cgroup.kill")); err != nil {
		return fmt.Errorf("the kernel has no cgroup.kill; Linux 5.14 or later is needed: %w", errs.ErrFailedPrecondition)
	}
	return g.limit(l)
}

// limit writes the limits. Swap is none: a guest's memory never goes to a disk of the host. One process that runs out of
// memory ends all of the group.
func (g *Group) limit(l Limits) error {
	cpu := "max"
	if l.CPUQuota > 0 {
		cpu = strconv.FormatInt(max(int64(l.CPUQuota*cpuPeriod), 1000), 10)
	}
	memory := "max"
	if l.MemoryMaxBytes > 0 {
		memory = strconv.FormatInt(l.MemoryMaxBytes, 10)
	}
	for _, f := range []struct{ name, value string }{
		{"memory.max", memory},
		{"memory.oom.group", "1"},
		{"pids.max", strconv.Itoa(l.PIDsMax)},
		{"cpu.max", cpu + " " + strconv.Itoa(cpuPeriod)},
	} {
		if err := write(g.dir, f.name, f.value); err != nil {
			return err
		}
	}
	err := write(g.dir, "memory.swap.max", "0")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return nil
	}
	return err
}

// Open returns the group's folder, for a process to be born in.
func (g *Group) Open() (*os.File, error) { return os.Open(g.dir) }

// Members returns the pids of the processes in the group. None and no error when there is no group.
func (g *Group) Members() ([]int, error) {
	data, err := read(g.dir, "cgroup.procs")
	if gone(err) {
		return nil, nil
	}
	var pids []int
	for _, word := range strings.Fields(data) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// OOMKilled says whether the kernel ended a process of the group for its memory limit.
func (g *Group) OOMKilled() bool {
	data, err := read(g.dir, "memory.events")
	return err == nil && counter(data, "oom_kill") > 0
}

// Kill ends all processes of the group and returns when they are gone. A group that is not there is no error.
func (g *Group) Kill(ctx context.Context) error {
	events := filepath.Join(g.dir, "cgroup.events")
	w, err := inotify.New(events, inotify.Modified)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	if err := write(g.dir, "cgroup.kill", "1"); err != nil && !gone(err) {
		return err
	}
	err = w.Until(ctx, func() (bool, error) {
		data, err := read(g.dir, "cgroup.events")
		if gone(err) {
			return true, nil
		}
		return counter(data, "populated") == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the end of cgroup %s: %w", filepath.Base(g.dir), err)
	}
	return nil
}

// Remove removes an empty group. One that is not there is no error.
func (g *Group) Remove() error {
	if err := unix.Rmdir(g.dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", g.dir, err)
	}
	return nil
}

// gone recognizes the errors of a group that was removed meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// counter reads "name value" off one line of several; 0 when it is not there.
func counter(data, name string) int64 {
	for line := range strings.Lines(data) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

func read(dir, name string) (string, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(data), err
}

// write writes to a file that is there. The kernel takes a value in one write.
func write(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(value); err != nil {
		return errors.Join(fmt.Errorf("set %s to %q: %w", name, value, err), f.Close())
	}
	return f.Close()
}
