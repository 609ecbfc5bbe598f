package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// files makes a folder that looks like a group: the kernel makes these files with the folder.
func files(t *testing.T, dir string, content map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateNeedsTheHierarchyAndItsControllers(t *testing.T) {
	root := t.TempDir()
	if _, err := New(root, Machines).Create("a", Limits{}); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("without a hierarchy: %v", err)
	}
	files(t, root, map[string]string{"cgroup.controllers": "cpu pids\n"})
	_, err := New(root, Machines).Create("a", Limits{})
	if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("without a controller: %v", err)
	}
}

func TestEnableWritesOnlyWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	files(t, dir, map[string]string{"cgroup.subtree_control": "cpu io memory pids\n"})
	if err := enable(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(dir, "cgroup.subtree_control"); got != "cpu io memory pids\n" {
		t.Errorf("it was written to: %q", got)
	}
	files(t, dir, map[string]string{"cgroup.subtree_control": ""})
	if err := enable(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(dir, "cgroup.subtree_control"); !strings.HasPrefix(got, "+") {
		t.Errorf("it was not written to: %q", got)
	}
}

func TestLimit(t *testing.T) {
	names := []string{"memory.max", "memory.oom.group", "pids.max", "cpu.max", "memory.swap.max"}
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{MemoryMaxBytes: 1 << 30, CPUQuota: 1.5, PIDsMax: 70}, "1073741824|1|70|150000 100000|0"},
		{Limits{MemoryMaxBytes: 1, PIDsMax: 1}, "1|1|1|max 100000|0"},
		{Limits{PIDsMax: 1}, "max|1|1|max 100000|0"},
		{Limits{MemoryMaxBytes: 1, PIDsMax: 1, CPUQuota: 0.001}, "1|1|1|1000 100000|0"},
	} {
		dir := t.TempDir()
		for _, name := range names {
			files(t, dir, map[string]string{name: ""})
		}
		if err := (&Group{dir}).limit(c.limits); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range names {
			text, _ := read(dir, name)
			got = append(got, text)
		}
		if text := strings.Join(got, "|"); text != c.want {
			t.Errorf("%+v: %s, want %s", c.limits, text, c.want)
		}
	}
	bare := t.TempDir()
	files(t, bare, map[string]string{"memory.max": "", "memory.oom.group": "", "pids.max": "", "cpu.max": ""})
	if err := (&Group{bare}).limit(Limits{}); err != nil {
		t.Errorf("a kernel without swap: %v", err)
	}
}

func TestEventsAndMembers(t *testing.T) {
	root := t.TempDir()
	p := New(root, Machines)
	dir := filepath.Join(root, Machines, "a")
	files(t, dir, map[string]string{
		"memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 1\n",
		"cgroup.procs":  "12\n345\n", "cgroup.events": "populated 1\nfrozen 0\n",
	})
	g := p.Get("a")
	if pids, err := g.Members(); err != nil || !slices.Equal(pids, []int{12, 345}) || !g.OOMKilled() {
		t.Errorf("members %v, out of memory %v, %v", pids, g.OOMKilled(), err)
	}
	none := p.Get("none")
	if pids, err := none.Members(); err != nil || len(pids) != 0 || none.OOMKilled() {
		t.Errorf("a group that is not there has members %v, %v", pids, err)
	}
	if err := none.Kill(t.Context()); err != nil {
		t.Errorf("Kill of a group that is not there: %v", err)
	}
	if err := none.Remove(); err != nil {
		t.Errorf("Remove of a group that is not there: %v", err)
	}
	files(t, filepath.Join(root, Machines), map[string]string{"cgroup.procs": ""})
	if ids, err := p.List(); err != nil || !slices.Equal(ids, []string{"a"}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	if ids, err := New(t.TempDir(), Machines).List(); err != nil || ids != nil {
		t.Errorf("List without a parent = %v, %v", ids, err)
	}
	if err := p.Tidy(); err != nil {
		t.Errorf("Tidy of a parent in use: %v", err)
	}
}

// TestKillWaitsForTheEnd plays the kernel: the group becomes empty some time after cgroup.kill was written.
func TestKillWaitsForTheEnd(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, Machines, "a")
	files(t, dir, map[string]string{"cgroup.events": "populated 1\n", "cgroup.kill": ""})
	done := make(chan error, 1)
	go func() { done <- New(root, Machines).Get("a").Kill(t.Context()) }()
	for {
		if text, _ := read(dir, "cgroup.kill"); text == "1" {
			break
		}
	}
	select {
	case err := <-done:
		t.Fatalf("Kill returned before the group was empty: %v", err)
	default:
	}
	files(t, dir, map[string]string{"cgroup.events": "populated 0\n"})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		data, name string
		want       int64
	}{
		{"oom 1\noom_kill 2\n", "oom_kill", 2}, {"oom_kill_disable 3\n", "oom_kill", 0}, {"", "x", 0}, {"x \n", "x", 0}, {"x y", "x", 0},
	} {
		if got := counter(c.data, c.name); got != c.want {
			t.Errorf("counter(%q, %q) = %d, want %d", c.data, c.name, got, c.want)
		}
	}
}
