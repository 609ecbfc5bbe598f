//go:build hosttest

package devmapper

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/disktest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

func freeze(t *testing.T, d *Driver, sandboxID, dst string) disk.Frozen {
	t.Helper()
	frozen, err := d.Freeze(t.Context(), sandboxID, dst)
	if err != nil {
		t.Fatal(err)
	}
	return frozen
}

// mount mounts a file system on a new folder, for the time of the test.
func mount(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// mountXFS is a file system that can share blocks.
func mountXFS(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "xfs")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 320*mib); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.xfs", "-q", "-m", "reflink=1", file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v: %s", err, out)
	}
	return mount(t, "-o", "loop", file)
}

func mountTmpfs(t *testing.T, size int64) string {
	t.Helper()
	return mount(t, "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "wrenn-test")
}

func subfolder(t *testing.T, dir string) string {
	t.Helper()
	sub, err := os.MkdirTemp(dir, "state")
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// TestConformanceOnXFS: the same where stores share their blocks and are written past the page cache.
func TestConformanceOnXFS(t *testing.T) {
	t.Setenv("TMPDIR", mountXFS(t))
	seen := map[string]bool{}
	disktest.Run(t, func(t *testing.T, stateDir string) disk.Driver {
		if !seen[stateDir] {
			nothingLeft(t, stateDir)
		}
		seen[stateDir] = true
		return New(Config{StateDir: stateDir, ReserveBytes: -1})
	})
}

// TestFrozenSharesBlocks on a file system that can, and nowhere else; a copy takes what is used and no more.
func TestFrozenSharesBlocks(t *testing.T) {
	xfs, other := mountXFS(t), mountTmpfs(t, 64*mib)
	state := subfolder(t, xfs)
	nothingLeft(t, state)
	d := New(Config{StateDir: state, ReserveBytes: -1})
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 200 * mib}
	made := create(t, d, spec)
	disktest.Write(t, made.Device, 100*mib, bytes.Repeat([]byte{1}, 4*mib))
	for dir, want := range map[string]bool{xfs: true, other: false} {
		dst := filepath.Join(dir, "frozen")
		var before, after unix.Statfs_t
		if err := unix.Statfs(dir, &before); err != nil {
			t.Fatal(err)
		}
		frozen := freeze(t, d, spec.ID, dst)
		if err := unix.Statfs(dir, &after); err != nil {
			t.Fatal(err)
		}
		taken := int64(before.Bfree-after.Bfree) * before.Bsize
		if frozen.Shared != want || frozen.HostBytes < 4*mib || frozen.HostBytes > 6*mib || frozen.SizeBytes < 200*mib {
			t.Errorf("on %s: %+v", dir, frozen)
		}
		if want && taken > mib || !want && (taken < 4*mib || taken > 6*mib) {
			t.Errorf("on %s: freezing took %d bytes", dir, taken)
		}
		restored := create(t, d, disk.Spec{ID: id.New(), Base: base, SizeBytes: 200 * mib, Store: dst})
		if !bytes.Equal(disktest.Read(t, restored.Device, 100*mib, 4*mib), bytes.Repeat([]byte{1}, 4*mib)) {
			t.Errorf("on %s: the restored disk differs", dir)
		}
	}
}

// TestFlattenEqualsDevice compares the flat image, which is made without the kernel, with what the kernel makes of the same
// store, after random writes that fill several areas, over several generations.
func TestFlattenEqualsDevice(t *testing.T) {
	for name, dir := range map[string]string{"shared": mountXFS(t), "copied": mountTmpfs(t, 256*mib)} {
		t.Run(name, func(t *testing.T) {
			state := subfolder(t, dir)
			nothingLeft(t, state)
			d := New(Config{StateDir: state, ReserveBytes: -1})
			r := rand.New(rand.NewPCG(5, 6))
			spec := disk.Spec{Base: oddImage(t, dir, r), SizeBytes: 24 * mib}
			for generation := range 4 {
				spec.ID = id.New()
				made := create(t, d, spec)
				machine := scribble(t, made, r)
				store := filepath.Join(dir, fmt.Sprint("store", generation))
				freeze(t, d, spec.ID, store)
				if u, err := d.Usage(t.Context(), spec.ID); err != nil || u.UsedBytes < 3*mib {
					t.Errorf("the writes did not fill several areas: %+v, %v", u, err)
				}
				then := disktest.Read(t, made.Device, 0, int(made.SizeBytes))
				machine.Close()
				if err := d.Remove(t.Context(), spec.ID); err != nil {
					t.Fatal(err)
				}
				flat := filepath.Join(dir, fmt.Sprint("flat", generation))
				if err := d.Flatten(t.Context(), spec.Base, store, spec.SizeBytes, flat); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(flat); err != nil || !bytes.Equal(got, then) {
					t.Errorf("generation %d: the flat image differs, %v", generation, err)
				}
				spec.Store = store
			}
		})
	}
}

// oddImage writes an image that ends within a chunk.
func oddImage(t *testing.T, dir string, r *rand.Rand) disk.Base {
	t.Helper()
	base, _ := disktest.WriteImage(t, mib)
	base.Path = filepath.Join(dir, "image") // its digest only names it
	content := make([]byte, 5*mib+512)
	fillRandom(r, content)
	if err := os.WriteFile(base.Path, content, 0o400); err != nil {
		t.Fatal(err)
	}
	return base
}

// scribble writes data and zeros of any length anywhere, and leaves the device open.
func scribble(t *testing.T, made disk.Disk, r *rand.Rand) *os.File {
	t.Helper()
	machine := disktest.Open(t, made.Device)
	for range 150 {
		b := make([]byte, 1+r.IntN(60_000))
		if r.IntN(4) > 0 {
			fillRandom(r, b)
		}
		disktest.WriteOpen(t, machine, r.Int64N(made.SizeBytes-int64(len(b))), b)
	}
	return machine
}

func fillRandom(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

// gone checks that a failed call left no file.
func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", path, err)
	}
}

// TestFreezeWhereNoRoomIs: freezing, flattening and restoring on a file system that is full fail and leave nothing; so do
// they on one that they would fill, before they take anything from those who use it.
func TestFreezeWhereNoRoomIs(t *testing.T) {
	state, small := t.TempDir(), mountTmpfs(t, mib)
	nothingLeft(t, state)
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 8 * mib}
	made := create(t, New(Config{StateDir: state}), spec)
	disktest.Write(t, made.Device, mib, bytes.Repeat([]byte{1}, 4*mib))
	store, dst := filepath.Join(t.TempDir(), "store"), filepath.Join(small, "dst")
	freeze(t, New(Config{StateDir: state}), spec.ID, store)
	for name, reserve := range map[string]int64{"full": -1, "reserved": 64 * mib} {
		d := New(Config{StateDir: state, ReserveBytes: reserve})
		if _, err := d.Freeze(t.Context(), spec.ID, dst); !errors.Is(err, errs.ErrResourceExhausted) {
			t.Errorf("%s: freeze: %v", name, err)
		}
		gone(t, dst)
		if err := d.Flatten(t.Context(), base, store, spec.SizeBytes, dst); !errors.Is(err, errs.ErrResourceExhausted) {
			t.Errorf("%s: flatten: %v", name, err)
		}
		gone(t, dst)
		d = New(Config{StateDir: subfolder(t, small), ReserveBytes: reserve})
		again := spec
		again.ID, again.Store = id.New(), store
		if _, err := d.Create(t.Context(), again); !errors.Is(err, errs.ErrResourceExhausted) {
			t.Errorf("%s: restore: %v", name, err)
		}
		gone(t, d.folder(again.ID))
	}
	if u, err := New(Config{StateDir: state}).Usage(t.Context(), spec.ID); err != nil || u.Failed {
		t.Errorf("the disk suffered: %+v, %v", u, err)
	}
}

// TestFreezeOfALostDisk: a disk that lost a write is not frozen, be it before or just when what was written is flushed; and
// nothing starts from its store.
func TestFreezeOfALostDisk(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state, storeLimit: 2 * mib})
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 8 * mib}
	made := create(t, d, spec)
	machine := disktest.Open(t, made.Device)
	disktest.WriteOpen(t, machine, 0, bytes.Repeat([]byte{1}, 6*mib))
	dst := filepath.Join(t.TempDir(), "dst")
	for range 2 {
		if _, err := d.Freeze(t.Context(), spec.ID, dst); !errors.Is(err, errs.ErrResourceExhausted) {
			t.Errorf("freeze: %v", err)
		}
		gone(t, dst)
	}
	machine.Close()
	other := disk.Spec{ID: id.New(), Base: base, SizeBytes: 8 * mib, Store: d.storePath(spec.ID)}
	if _, err := d.Create(t.Context(), other); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a disk of a lost one's store: %v", err)
	}
	if err := d.Flatten(t.Context(), base, other.Store, 8*mib, dst); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("an image of a lost disk's store: %v", err)
	}
	gone(t, dst)
}

// TestFreezeAfterAKill: what a process wrote that was killed at once is in the frozen disk, and the device is not busy.
func TestFreezeAfterAKill(t *testing.T) {
	state := t.TempDir()
	nothingLeft(t, state)
	d := New(Config{StateDir: state})
	base, _ := disktest.WriteImage(t, mib)
	spec := disk.Spec{ID: id.New(), Base: base, SizeBytes: 2 * mib}
	made := create(t, d, spec)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `exec 3<>"$0"; printf 'last words' >&3; echo written; exec sleep 1000`, made.Device)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "written\n" {
		t.Errorf("the process said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	store := filepath.Join(t.TempDir(), "store")
	freeze(t, d, spec.ID, store)
	_ = cmd.Wait() // it was killed
	if err := d.Remove(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	spec.Store = store
	restored := create(t, d, spec)
	if got := disktest.Read(t, restored.Device, 0, 10); string(got) != "last words" {
		t.Errorf("the restored disk has %q", got)
	}
}

// TestKillAtEveryStepOfRestore kills a process at each step that only a disk from a frozen store has; Remove leaves nothing.
func TestKillAtEveryStepOfRestore(t *testing.T) {
	store, l := frozenLife(t)
	for _, point := range RestoreFailpoints() {
		t.Run(point, func(t *testing.T) {
			l.State, l.Spec.ID, l.Spec.Store = t.TempDir(), id.New(), store
			nothingLeft(t, l.State)
			l.fails(t, point)
			gone(t, filepath.Join(l.State, "sandboxes", l.Spec.ID))
			l.killed(t, point)
			if err := New(Config{StateDir: l.State}).Remove(t.Context(), l.Spec.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// frozenLife makes a frozen store, and the life that it is of.
func frozenLife(t *testing.T) (store string, l life) {
	t.Helper()
	l = newLife(t, t.TempDir())
	d := New(Config{StateDir: l.State})
	made := create(t, d, l.Spec)
	disktest.Write(t, made.Device, 0, bytes.Repeat([]byte{1}, 2*mib))
	store = filepath.Join(t.TempDir(), "store")
	freeze(t, d, l.Spec.ID, store)
	return store, l
}

// TestKillAtEveryStepOfFreeze fails and kills a process at each step of Freeze and Flatten: a failure leaves no file, and after
// either the disk can be frozen again and removed.
func TestKillAtEveryStepOfFreeze(t *testing.T) {
	for i, points := range [][]string{FreezeFailpoints(), FlattenFailpoints()} {
		for _, point := range points {
			t.Run(point, func(t *testing.T) {
				l := newLife(t, t.TempDir())
				nothingLeft(t, l.State)
				d := New(Config{StateDir: l.State})
				for _, kill := range []bool{false, true} {
					l.Frozen = filepath.Join(t.TempDir(), "frozen")
					if kill {
						l.killed(t, point)
					} else {
						l.fails(t, point)
						gone(t, []string{l.Frozen, l.flat()}[i])
					}
					freeze(t, d, l.Spec.ID, l.Frozen+".again")
					if err := d.Remove(t.Context(), l.Spec.ID); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}
