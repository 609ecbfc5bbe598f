package firecracker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
)

// namespaces are the kinds that a machine's process has its own of.
var namespaces = []string{"mnt", "net", "pid"}

// Inspect reads how a machine's process is confined out of /proc.
func (d *Driver) Inspect(_ context.Context, machine string) (vmm.Confinement, error) {
	if _, err := id.Parse(machine); err != nil {
		return vmm.Confinement{}, err
	}
	pids, err := d.groups.Get(machine).Members()
	if err != nil || len(pids) != 1 {
		return vmm.Confinement{}, fmt.Errorf("machine %s has %d processes: %w", machine, len(pids), errors.Join(errs.ErrNotFound, err))
	}
	c, err := inspect(pids[0])
	if err != nil {
		return c, err
	}
	c.Root, err = d.rootOf(machine, pids[0])
	return c, err
}

// rootOf is the host's path of the process's root folder. The process's own mount namespace calls it "/", so it is found by
// what it is.
func (d *Driver) rootOf(machine string, pid int) (string, error) {
	root := fmt.Sprintf("/proc/%d/root/.", pid)
	theirs, err := os.Stat(root)
	if err != nil {
		return "", err
	}
	j, err := d.jails.Open(machine)
	if err != nil {
		return "", err
	}
	defer j.Close()
	if ours, err := os.Stat(j.Path("")); err == nil && os.SameFile(theirs, ours) {
		return j.Path(""), nil
	}
	return os.Readlink(filepath.Dir(root))
}

// inspect reads all but the root folder.
func inspect(pid int) (vmm.Confinement, error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	c := vmm.Confinement{PID: pid, Seccomp: -1}
	tasks, err := filepath.Glob(dir + "/task/*/status")
	if err != nil || len(tasks) == 0 {
		return c, fmt.Errorf("process %d: %w", pid, errs.ErrNotFound)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			return c, fmt.Errorf("process %d: %w: %w", pid, err, errs.ErrNotFound)
		}
		if err := addStatus(&c, data); err != nil {
			return c, err
		}
	}
	if c.CGroup, err = cgroupOf(dir + "/cgroup"); err != nil {
		return c, err
	}
	for _, kind := range namespaces {
		theirs, err := os.Readlink(dir + "/ns/" + kind)
		if err != nil {
			return c, err
		}
		if ours, err := os.Readlink("/proc/self/ns/" + kind); err != nil || ours == theirs {
			c.Shared = append(c.Shared, kind)
		}
	}
	return c, nil
}

// addStatus adds what /proc/PID/task/TID/status tells of one thread.
func addStatus(c *vmm.Confinement, status []byte) error {
	first := c.Seccomp < 0
	f := fields(status)
	seccomp, err := strconv.Atoi(f["Seccomp"])
	if err != nil {
		return fmt.Errorf("status of a process: %w: %w", err, errs.ErrCorrupt)
	}
	if uid := same(f["Uid"]); first || uid == c.UID {
		c.UID = uid
	} else {
		c.UID = -1
	}
	if gid := same(f["Gid"]); first || gid == c.GID {
		c.GID = gid
	} else {
		c.GID = -1
	}
	if first || seccomp < c.Seccomp {
		c.Seccomp = seccomp
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		caps, err := strconv.ParseUint(f[set], 16, 64)
		if err != nil {
			return fmt.Errorf("status of a process: %s: %w: %w", set, err, errs.ErrCorrupt)
		}
		c.Caps |= caps
	}
	for _, g := range numbers(f["Groups"]) {
		if !slices.Contains(c.Groups, g) {
			c.Groups = append(c.Groups, g)
		}
	}
	c.NewPrivs = c.NewPrivs || f["NoNewPrivs"] != "1"
	if first || f["Pid"] == f["Tgid"] {
		c.NSPids = numbers(f["NSpid"])
	}
	return nil
}

// fields splits "Name:\tvalue" lines.
func fields(status []byte) map[string]string {
	f := map[string]string{}
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		f[name] = strings.TrimSpace(value)
	}
	return f
}

// numbers reads numbers between white space. What is no number is left out.
func numbers(s string) []int {
	var list []int
	for _, word := range strings.Fields(s) {
		if n, err := strconv.Atoi(word); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// same is the one number that is there, however often, or -1.
func same(s string) int {
	list := slices.Compact(numbers(s))
	if len(list) != 1 {
		return -1
	}
	return list[0]
}

// cgroupOf is the process's path in the unified hierarchy.
func cgroupOf(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", nil
}
