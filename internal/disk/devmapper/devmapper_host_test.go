//go:build hosttest

package devmapper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/disk/devmapper/loop"
	"wrenn.dev/wrenn/internal/disk/disktest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
)

const mib = disktest.MiB

// childEnv makes the test binary be the process that is killed: a life in JSON.
const childEnv = "WRENN_DISK_TEST_CHILD"

// life is what a child does: it makes a disk, freezes it to Frozen if that is set, then flattens that, and removes the disk.
type life struct {
	State  string
	Spec   disk.Spec
	Frozen string
}

func TestMain(m *testing.M) {
	var l life
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &l); err == nil {
		if err := l.live(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func (l life) live(ctx context.Context) error {
	d := New(Config{StateDir: l.State})
	if _, err := d.Create(ctx, l.Spec); err != nil {
		return err
	}
	if l.Frozen != "" {
		if _, err := d.Freeze(ctx, l.Spec.ID, l.Frozen); err != nil {
			return err
		}
		if err := d.Flatten(ctx, l.Spec.Base, l.Frozen, l.Spec.SizeBytes, l.flat()); err != nil {
			return err
		}
	}
	return d.Remove(ctx, l.Spec.ID)
}

// flat is the path of the flat image.
func (l life) flat() string { return l.Frozen + ".flat" }

// newLife is the life of a disk that is larger than its image.
func newLife(t *testing.T, state string) life {
	base, _ := disktest.WriteImage(t, mib)
	return life{State: state, Spec: disk.Spec{ID: id.New(), Base: base, SizeBytes: 4 * mib}}
}

// run runs a child at a failpoint. It returns what it printed and how it ended.
func (l life) run(t *testing.T, point string) (string, *os.ProcessState) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), failpoint.Env+"="+point, childEnv+"="+string(b))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState
}

// killed runs a child that must be killed at a failpoint.
func (l life) killed(t *testing.T, point string) {
	t.Helper()
	out, end := l.run(t, point+"=kill")
	if status, ok := end.Sys().(interface{ Signal() unix.Signal }); !ok || status.Signal() != unix.SIGKILL {
		t.Fatalf("the process was not killed at %s: %v\n%s", point, end, out)
	}
}

// fails runs a child that must fail at a failpoint, and say so.
func (l life) fails(t *testing.T, point string) {
	t.Helper()
	if out, end := l.run(t, point+"=error"); end.ExitCode() != 1 || !strings.Contains(out, point) {
		t.Errorf("the process ended with %v and said %q", end, out)
	}
}

// hostObjects are the device-mapper and loop devices of the host.
func hostObjects(t *testing.T) []string {
	t.Helper()
	control, err := dm.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	devices, err := control.List()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range devices {
		list = append(list, "dm "+d.Name)
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range loops {
		if file, err := os.ReadFile(path); err == nil { // else it has just gone
			list = append(list, "loop "+strings.TrimSpace(string(file)))
		}
	}
	slices.Sort(list)
	return list
}

// nothingLeft checks at the test's end that the host has the devices that it had, and that the state folder is empty.
func nothingLeft(t *testing.T, state string) {
	t.Helper()
	before := hostObjects(t)
	t.Cleanup(func() {
		if after := hostObjects(t); !slices.Equal(before, after) {
			t.Errorf("devices before: %q, after: %q", before, after)
		}
		for _, sub := range []string{"sandboxes", "loops"} {
			if left, err := os.ReadDir(filepath.Join(state, sub)); err == nil && len(left) != 0 {
				t.Errorf("left in %s: %v", sub, left)
			}
		}
	})
}

func create(t *testing.T, d *Driver, spec disk.Spec) disk.Disk {
	t.Helper()
	made, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(context.Background(), spec.ID); err != nil {
			t.Error(err)
		}
	})
	return made
}

func TestConformance(t *testing.T) {
	seen := map[string]bool{}
	disktest.Run(t, func(t *testing.T, stateDir string) disk.Driver {
		if !seen[stateDir] {
			nothingLeft(t, stateDir)
		}
		seen[stateDir] = true
		return New(Config{StateDir: stateDir})
	})
}

// TestOneLoopDeviceForAnImage, read-only, whatever the number of disks.
func TestOneLoopDeviceForAnImage(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, _ := disktest.WriteImage(t, mib)
	for range 3 {
		create(t, d, disk.Spec{ID: id.New(), Base: base, SizeBytes: 2 * mib})
	}
	count := 0
	for _, o := range hostObjects(t) {
		if o == "loop "+base.Path {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d loop devices for one image", count)
	}
	number, err := os.ReadFile(filepath.Join(state, "loops", base.Digest, "device"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile("/dev/loop"+strings.TrimSpace(string(number)), os.O_RDWR, 0)
	if err != nil {
		return // refused at once
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 512)); err == nil && f.Sync() == nil {
		t.Error("the image's device takes writes")
	}
}

// TestInUse: a disk that something has open is not removed, and goes on.
func TestInUse(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, content := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base}
	made := create(t, d, spec)
	f, err := os.Open(made.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	why := errors.New("the caller left")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
	defer cancel()
	if err := d.Remove(ctx, spec.ID); !errors.Is(err, errs.ErrFailedPrecondition) || !errors.Is(err, why) {
		t.Errorf("remove for a caller who leaves: %v", err)
	}
	if err := d.Remove(t.Context(), spec.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("remove: %v", err)
	}
	if !bytes.Equal(disktest.Read(t, made.Device, 0, mib), content) {
		t.Error("the disk lost its content")
	}
	f.Close()
	if err := d.Remove(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}

// fill writes pattern blocks to a device, past the page cache, until one fails. It returns the offset of that one.
func fill(t *testing.T, device string, size int64) (int64, error) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := int64(0); at < size; at += 64 << 10 {
		if _, err := f.WriteAt(bytes.Repeat([]byte{pattern}, 64<<10), at); err != nil {
			return at, err
		}
	}
	return size, nil
}

const pattern = 'x'

// lost checks a disk whose store ran full: the write failed, Usage says so, and no read gives what was never written.
func lost(t *testing.T, d *Driver, spec disk.Spec, made disk.Disk) {
	t.Helper()
	watched := make(chan error, 1)
	go func() { watched <- d.Watch(t.Context(), spec.ID) }()
	at, err := fill(t, made.Device, made.SizeBytes)
	if err == nil || at == 0 {
		t.Fatalf("%d bytes were written, then %v", at, err)
	}
	u, err := d.Usage(t.Context(), spec.ID)
	if err != nil || !u.Failed {
		t.Errorf("usage %+v, %v", u, err)
	}
	if err := <-watched; !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("watch: %v", err)
	}
	f, err := os.Open(made.Device)
	if err != nil {
		return
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for at := int64(0); at < made.SizeBytes; at += 64 << 10 {
		if _, err := f.ReadAt(b, at); err == nil {
			t.Fatalf("a read at %d of the failed disk succeeds", at)
		}
	}
}

// TestWatch: a watch ends when its disk goes or its caller leaves, and not before.
func TestWatch(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 2 * mib}
	if err := d.Watch(t.Context(), spec.ID); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("no disk: %v", err)
	}
	made := create(t, d, spec)
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	leaving, staying := make(chan error, 1), make(chan error, 1)
	go func() { leaving <- d.Watch(ctx, spec.ID) }()
	go func() { staying <- d.Watch(t.Context(), spec.ID) }()
	disktest.Write(t, made.Device, 0, bytes.Repeat([]byte{1}, 2*mib))
	if _, err := d.Create(t.Context(), disk.Spec{ID: spec.ID, Base: base}); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Error(err)
	}
	select {
	case err := <-leaving:
		t.Errorf("the watch ended although nothing happened: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	cancel(why)
	if err := <-leaving; !errors.Is(err, why) {
		t.Errorf("the caller left: %v", err)
	}
	if err := d.Remove(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-staying; !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("the disk is gone: %v", err)
	}
}

func TestStoreOverflows(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state, storeLimit: 2 * mib})
	base, content := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 8 * mib}
	lost(t, d, spec, create(t, d, spec))
	if now, err := os.ReadFile(base.Path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the image changed (%v)", err)
	}
}

// TestHostIsFull has a file system that is smaller than the disk that is written to it.
func TestHostIsFull(t *testing.T) {
	state := t.TempDir()
	if err := unix.Mount("wrenn-test", state, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(state, 0); err != nil {
			t.Error(err)
		}
	})
	nothingLeft(t, state)
	base, content := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 16 * mib}
	if _, err := New(Config{StateDir: state}).Create(t.Context(), spec); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a disk on a file system that is nearly full: %v", err)
	}
	d := New(Config{StateDir: state, ReserveBytes: -1})
	lost(t, d, spec, create(t, d, spec))
	if now, err := os.ReadFile(base.Path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the image changed (%v)", err)
	}
}

// TestKillAtEveryStep kills a process at each step of a disk's life; Remove then leaves nothing.
func TestKillAtEveryStep(t *testing.T) {
	for _, point := range Failpoints() {
		t.Run(point, func(t *testing.T) {
			state := t.TempDir()
			nothingLeft(t, state)
			l := newLife(t, state)
			l.killed(t, point)
			sandboxID := l.Spec.ID
			d := New(Config{StateDir: state})
			ids, err := d.List(t.Context())
			if atLast := point == pointStoreGone.String(); err != nil || slices.Contains(ids, sandboxID) == atLast {
				t.Errorf("List: %v, %v", ids, err)
			}
			for range 2 {
				if err := d.Remove(t.Context(), sandboxID); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFailureAtEveryStep makes each step of Create fail: it leaves nothing, and says what failed.
func TestFailureAtEveryStep(t *testing.T) {
	for _, point := range Failpoints() {
		if strings.HasSuffix(point, "-gone") {
			continue
		}
		t.Run(point, func(t *testing.T) {
			state := t.TempDir()
			nothingLeft(t, state)
			newLife(t, state).fails(t, point)
		})
	}
}

// TestForeignDevicesStay: a device is ours by its uuid, not by its name.
func TestForeignDevicesStay(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 2 * mib}
	control, err := dm.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	const uuid = "SOMEBODY-1"
	if _, err := control.Create(namePrefix+spec.ID, uuid); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := control.Remove(uuid); err != nil {
			t.Errorf("the foreign device is gone: %v", err)
		}
	}()
	if ids, err := d.List(t.Context()); err != nil || slices.Contains(ids, spec.ID) {
		t.Errorf("List: %v, %v", ids, err)
	}
	if _, err := d.Create(t.Context(), spec); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("Create beside a device of that name: %v", err)
	}
	if err := d.Remove(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}

// TestRegistryRepairs: an entry that names a foreign device, or one of another file, is replaced, and that device stays.
func TestRegistryRepairs(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, content := disktest.WriteImage(t, mib)
	foreign, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	for name, as := range map[string]string{"another's name": "somebody", "our name": base.Digest} {
		held, err := loop.Attach(t.Context(), foreign, loop.Spec{Name: as, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		entry := filepath.Join(state, "loops", base.Digest)
		if err := os.MkdirAll(entry, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(entry, "device"), fmt.Append(nil, held.Number), 0o600); err != nil {
			t.Fatal(err)
		}
		spec := disk.Spec{ID: id.New(), Base: base}
		made, err := d.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(disktest.Read(t, made.Device, 0, mib), content) {
			t.Errorf("%s: the disk shows another file", name)
		}
		if err := d.Remove(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
		if s, err := held.Status(); err != nil || !strings.HasPrefix(loop.Prefix+as, s.Name) || s.Name == "" {
			t.Errorf("%s: the foreign device has %+v, %v", name, s, err)
		}
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNoDescriptorsLeft: a driver that lives long opens nothing for good.
func TestNoDescriptorsLeft(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, _ := disktest.WriteImage(t, mib)
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	for range 5 {
		spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 2 * mib}
		if _, err := d.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Usage(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
		store := filepath.Join(t.TempDir(), "store")
		freeze(t, d, spec.ID, store)
		if err := d.Remove(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
		spec.Store = store
		if _, err := d.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := d.Flatten(t.Context(), base, store, spec.SizeBytes, store+".flat"); err != nil {
			t.Error(err)
		}
		if err := d.Remove(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
