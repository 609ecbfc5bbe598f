package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
	"wrenn.dev/wrenn/internal/vmm/vmmtest"
)

func TestSuite(t *testing.T) {
	h := newFakeHost(t)
	vmmtest.Run(t, vmmtest.Harness{
		New:    func(t *testing.T) vmm.Driver { return h.driver(t) },
		Config: h.config,
		Folder: func(t *testing.T) string { return folderIn(t, h.dir) },
		Ends: map[vmm.ExitReason]vmmtest.End{
			vmm.ExitGuest:  {Prepare: func(cfg *vmm.Config) { cfg.BootArgs += " reboot" }},
			vmm.ExitSignal: {Provoke: func(t *testing.T, m vmm.Machine) { kill(t, m) }},
			vmm.ExitOOM:    {Provoke: func(_ *testing.T, m vmm.Machine) { h.outOfMemory(m.Handle().ID) }},
		},
	})
}

// folderIn makes a folder for the length of the test.
func folderIn(t *testing.T, dir string) string {
	t.Helper()
	path, err := os.MkdirTemp(dir, "frozen-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}

func kill(t *testing.T, m vmm.Machine) {
	t.Helper()
	if err := unix.Kill(m.Handle().PID, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestFirecrackerFails has Firecracker fail in every way at a request. The error says which, and what Firecracker said.
func TestFirecrackerFails(t *testing.T) {
	for behaviour, want := range map[string]struct {
		kind error
		says []string
	}{
		"refuse:/boot-source":             {errs.ErrFailedPrecondition, []string{"PUT /boot-source", "The kernel file cannot be opened: ?[1mNo such file or directory"}},
		"refuse:/actions":                 {errs.ErrFailedPrecondition, []string{"PUT /actions", "No such file"}},
		"refuse:/network-interfaces/eth0": {errs.ErrFailedPrecondition, []string{"PUT /network-interfaces/eth0"}},
		"die:/drives/modules":             {errs.ErrUnavailable, []string{"PUT /drives/modules", "code 148", "seccomp", "out of cheese"}},
		"die:/actions":                    {errs.ErrUnavailable, []string{"PUT /actions", "out of cheese"}},
		"garbage:/machine-config":         {errs.ErrUnavailable, []string{"PUT /machine-config", "malformed HTTP"}},
		"endless:/mmds":                   {errs.ErrFailedPrecondition, []string{"PUT /mmds", "status 400"}},
		"exit:":                           {errs.ErrUnavailable, []string{"API socket", "code 3", "panicked: ?[31mno KVM"}},
	} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.behaviour = behaviour
			_, err := h.driver(t).Start(t.Context(), h.config(t))
			if !errors.Is(err, want.kind) {
				t.Fatalf("Start = %v, want %v", err, want.kind)
			}
			for _, text := range want.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not say %q", err, text)
				}
			}
			if strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 3000 {
				t.Errorf("%q is no bounded printable line", err)
			}
		})
	}
}

// TestFirecrackerHangs ends a start by its context, at a request and before the socket is there.
func TestFirecrackerHangs(t *testing.T) {
	for _, behaviour := range []string{"hang:/mmds/config", "hang:/actions", "silent:"} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.behaviour = behaviour
			late := errors.New("the start took too long")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, late)
			defer cancel()
			_, err := h.driver(t).Start(ctx, h.config(t))
			if !errors.Is(err, late) || !errors.Is(err, errs.ErrUnavailable) {
				t.Errorf("Start = %v, want the context's cause", err)
			}
		})
	}
}

// TestRequestsArriveInOrder reads what the fake was sent.
func TestRequestsArriveInOrder(t *testing.T) {
	for version, serial := range map[string]bool{"1.12.1": false, "1.16.1": true} {
		h := newFakeHost(t)
		h.version = version
		d, cfg := h.driver(t), h.config(t)
		m, err := d.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(h.dir, "jail", "firecracker", cfg.ID, "root", "requests"))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"/machine-config", "/boot-source", "/drives/modules", "/network-interfaces/eth0", "/mmds/config", "/mmds", "/entropy"}
		if serial {
			want = append(want, "/serial")
		}
		want = append(want, "/actions")
		var got []string
		for line := range strings.Lines(string(data)) {
			got = append(got, strings.Fields(line)[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: requests %v, want %v", version, got, want)
		}
		if got := m.Handle().Driver; got != "firecracker "+version {
			t.Errorf("driver %q", got)
		}
		if err := d.Remove(t.Context(), cfg.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStepsAndFailpointsHaveTheSameNames(t *testing.T) {
	h := newFakeHost(t)
	d, cfg := h.driver(t), h.config(t)
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"vmm.start"}
	for _, s := range m.Timings() {
		names = append(names, s.Name)
	}
	if !slices.Equal(names, Failpoints()) {
		t.Errorf("steps %v, failpoints %v", names, Failpoints())
	}
	if err := d.Remove(t.Context(), cfg.ID); err != nil {
		t.Fatal(err)
	}
}

// TestFloodOfOutput has the machine write to its console and log without end.
func TestFloodOfOutput(t *testing.T) {
	h := newFakeHost(t)
	d, cfg := h.driver(t), h.config(t)
	cfg.BootArgs += " flood"
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		log, console := m.ConsoleTail(1000)
		if len(log) > 1000 || len(console) > 1000 || strings.Contains(log+console, "\x1b") {
			t.Fatalf("%d bytes of log, %d of console, or not printable", len(log), len(console))
		}
		if strings.Contains(log, "flood") && strings.Contains(console, "flood") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no output came")
		}
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); err != nil {
		t.Errorf("the flood held the API up: %v", err)
	}
	if err := d.Remove(t.Context(), cfg.ID); err != nil {
		t.Fatal(err)
	}
}

// TestRemoveHalfMade removes what a starter leaves that is killed between two steps.
func TestRemoveHalfMade(t *testing.T) {
	h := newFakeHost(t)
	d := h.driver(t)
	onlyGroup, onlyJail := h.config(t), h.config(t)
	if _, err := h.Create(onlyGroup.ID, vmm.Limits{}); err != nil {
		t.Fatal(err)
	}
	j, err := jail.New(filepath.Join(h.dir, "jail"), filepath.Join(h.dir, "stage")).Create("firecracker", onlyJail.ID, onlyJail.Jail.UID, onlyJail.Jail.GID)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	ids, err := d.List(t.Context())
	want := []string{onlyGroup.ID, onlyJail.ID}
	slices.Sort(want)
	if err != nil || !slices.Equal(ids, want) {
		t.Fatalf("List = %v, %v; want %v", ids, err, want)
	}
	for _, cfg := range []vmm.Config{onlyGroup, onlyJail} {
		if _, err := d.Start(t.Context(), cfg); !errors.Is(err, errs.ErrAlreadyExists) {
			t.Errorf("Start over something half made: %v", err)
		}
		if err := d.Remove(t.Context(), cfg.ID); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

// TestHostileJail has the jailed process put things in the place of its pipes and its socket.
func TestHostileJail(t *testing.T) {
	h := newFakeHost(t)
	d, cfg := h.driver(t), h.config(t)
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	root := filepath.Join(h.dir, "jail", "firecracker", cfg.ID, "root")
	socket := filepath.Join(root, socketName)
	if err := os.Rename(socket, socket+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("firecracker.socket2", socket); err != nil {
		t.Fatal(err)
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("PatchMetadata through a link: %v", err)
	}
	if err := os.Remove(filepath.Join(root, logName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/sda", filepath.Join(root, logName)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Recover(t.Context(), m.Handle()); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Recover with a link for a log: %v", err)
	}
	if err := d.Remove(t.Context(), cfg.ID); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func TestBinaries(t *testing.T) {
	h := newFakeHost(t)
	cfg := h.config(t)
	for name, change := range map[string]func(*Driver){
		"missing":    func(d *Driver) { d.opts.Firecracker = "/nonexistent/firecracker" },
		"other name": func(d *Driver) { d.opts.Firecracker = copyTo(t, d.opts.Firecracker, "vmm") },
		"unsupported": func(d *Driver) {
			h.version = "1.99.0"
			d.opts = h.driver(t).opts
		},
	} {
		h.version = "1.12.1"
		d := h.driver(t)
		change(d)
		_, err := d.Start(t.Context(), cfg)
		if !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
		if ids, err := d.List(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("%s: without binaries, List = %v, %v", name, ids, err)
		}
		if err := d.Remove(t.Context(), id.New()); err != nil {
			t.Errorf("%s: without binaries, Remove = %v", name, err)
		}
	}
}

func copyTo(t *testing.T, from, name string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// frozen starts a machine that tracks its pages and freezes it.
func frozen(t *testing.T, h *fakeHost) (d *Driver, clone vmm.Config) {
	t.Helper()
	d, cfg := h.driver(t), h.config(t)
	cfg.TrackDirty = true
	m := started(t, d, cfg)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := vmm.Snapshot{State: filepath.Join(h.dir, "state"), Memory: filepath.Join(h.dir, "memory")}
	if err := m.Snapshot(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	clone = h.config(t)
	clone.Kernel, clone.Initramfs, clone.BootArgs, clone.TrackDirty = "", "", "", true
	clone.From = &vmm.Frozen{State: s.State, Memory: s.Memory}
	return d, clone
}

func started(t *testing.T, d *Driver, cfg vmm.Config) vmm.Machine {
	t.Helper()
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Remove(context.Background(), cfg.ID), m.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestLoadIsAskedForByVersion reads what the fake was sent: the field for tracking pages has another name before 1.13.
func TestLoadIsAskedForByVersion(t *testing.T) {
	for version, field := range map[string]string{"1.12.1": `"enable_diff_snapshots":true`, "1.15.1": `"track_dirty_pages":true`} {
		h := newFakeHost(t)
		h.version = version
		d, clone := frozen(t, h)
		started(t, d, clone)
		data, err := os.ReadFile(filepath.Join(h.dir, "jail", "firecracker", clone.ID, "root", "requests"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) != 3 || !strings.HasPrefix(lines[0], "PUT /snapshot/load") || !strings.Contains(lines[0], field) ||
			!strings.HasPrefix(lines[1], "PUT /mmds ") || lines[2] != `PATCH /vm {"state":"Resumed"}` {
			t.Errorf("%s: %q", version, lines)
		}
		if f, err := d.Fingerprint(t.Context()); err != nil || f.Version != version || f.SnapshotFormat == "" {
			t.Errorf("%+v, %v", f, err)
		}
	}
}

// TestAFailedSnapshotLeavesNoFiles has Firecracker fail at a snapshot in every way.
func TestAFailedSnapshotLeavesNoFiles(t *testing.T) {
	for _, behaviour := range []string{"refuse:/snapshot/create", "die:/snapshot/create", "hang:/snapshot/create", "garbage:/snapshot/create"} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			h := newFakeHost(t)
			h.behaviour = behaviour
			d, cfg := h.driver(t), h.config(t)
			m := started(t, d, cfg)
			if err := m.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			s := vmm.Snapshot{State: filepath.Join(h.dir, "state"), Memory: filepath.Join(h.dir, "memory")}
			err := m.Snapshot(ctx, s)
			if err == nil || !strings.Contains(err.Error(), "/snapshot/create") {
				t.Errorf("%v does not name the request", err)
			}
			for _, path := range []string{s.State, s.Memory} {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
		})
	}
}

// TestAFailedLoadLeavesNothing has Firecracker refuse what it is to begin from, and end, as it does.
func TestAFailedLoadLeavesNothing(t *testing.T) {
	h := newFakeHost(t)
	d, clone := frozen(t, h)
	h.behaviour = "die:/snapshot/load"
	if _, err := d.Start(t.Context(), clone); !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "PUT /snapshot/load") {
		t.Errorf("Start = %v", err)
	}
	for _, path := range []string{clone.From.State, clone.From.Memory} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}
