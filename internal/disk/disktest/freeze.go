package disktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
)

// freezerTests are the suite of disk.Freezer and Spec.Store.
var freezerTests = map[string]func(*suite){
	"FreezeAndRestore":  (*suite).freezeAndRestore,
	"FreezeAndRemove":   (*suite).freezeAndRemove,
	"FrozenDiverge":     (*suite).frozenDiverge,
	"FrozenGenerations": (*suite).frozenGenerations,
	"FreezeRefusals":    (*suite).freezeRefusals,
	"StoreRefusals":     (*suite).storeRefusals,
	"RestoreTakenID":    (*suite).restoreTakenID,
	"FreezeEndedCaller": (*suite).freezeEndedCaller,
}

// testsOf are the tests that a driver must pass.
func testsOf(d disk.Driver) map[string]func(*suite) {
	tests := maps.Clone(driverTests)
	if _, ok := d.(disk.Freezer); ok {
		maps.Copy(tests, freezerTests)
	}
	return tests
}

func (s *suite) freezer() disk.Freezer { return s.d.(disk.Freezer) }

// freeze freezes a disk into a new file of a folder of the test, and checks what is said of it.
func (s *suite) freeze(sandboxID string, deviceBytes int64) (path string) {
	s.Helper()
	path = filepath.Join(s.TempDir(), "frozen")
	frozen, err := s.freezer().Freeze(s.Context(), sandboxID, path)
	if err != nil {
		s.Fatalf("freeze: %v", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		s.Fatal(err)
	}
	if frozen.SizeBytes != st.Size() || frozen.DeviceBytes != deviceBytes || frozen.HostBytes <= 0 {
		s.Errorf("frozen %+v, a file of %d bytes of a disk of %d", frozen, st.Size(), deviceBytes)
	}
	return path
}

// flatten returns what the raw image of a frozen disk has.
func (s *suite) flatten(base disk.Base, store string, size int64) []byte {
	s.Helper()
	path := filepath.Join(s.TempDir(), "flat")
	if err := s.freezer().Flatten(s.Context(), base, store, size, path); err != nil {
		s.Fatalf("flatten: %v", err)
	}
	return read(s, path)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Open opens a device for writing, as a machine has it. While it is open, what is written may be in the kernel's memory only;
// when the last one closes it the kernel writes that out. The test's end closes it too.
func Open(t testing.TB, device string) *os.File {
	t.Helper()
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // maybe again
	return f
}

// WriteOpen writes to an open device and leaves it to the kernel when that gets there.
func WriteOpen(t testing.TB, f *os.File, offset int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatalf("write %d bytes at %d of %s: %v", len(b), offset, f.Name(), err)
	}
}

// freezeAndRestore: another disk has what the frozen one had then; the frozen one goes on.
func (s *suite) freezeAndRestore() {
	base, content := WriteImage(s, MiB)
	for name, size := range map[string]int64{"as large": MiB, "larger": 3 * MiB} {
		one, two := s.newID(), s.newID()
		a := s.create(disk.Spec{ID: one, Base: base, SizeBytes: size})
		then := append(bytes.Clone(content), make([]byte, size-MiB)...)
		copy(then[5000:], "unsynced")
		copy(then[size-600:], "at the end")
		Write(s, a.Device, size-600, []byte("at the end"))
		machine := Open(s, a.Device)
		WriteOpen(s, machine, 5000, []byte("unsynced"))
		store := s.freeze(one, size)
		Write(s, a.Device, 5000, []byte("later"))
		Write(s, a.Device, 40960, []byte("elsewhere"))
		b := s.create(disk.Spec{ID: two, Base: base, SizeBytes: size, Store: store})
		if b.SizeBytes != size || !bytes.Equal(Read(s, b.Device, 0, int(size)), then) {
			s.Errorf("%s: the restored disk has not what was frozen", name)
		}
		if !bytes.Equal(s.flatten(base, store, size), then) {
			s.Errorf("%s: the flat image has not what was frozen", name)
		}
		if got := Read(s, a.Device, 5000, 5); string(got) != "later" {
			s.Errorf("%s: the frozen disk has %q now", name, got)
		}
		machine.Close()
		s.remove(one, two)
	}
	s.unchanged(base, content)
}

// freezeAndRemove is a pause: the disk goes at once, and comes back under its own id.
func (s *suite) freezeAndRemove() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	spec := disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB}
	for round := range byte(3) {
		d := s.create(spec)
		machine := Open(s, d.Device)
		WriteOpen(s, machine, int64(round)*100, []byte{round + 1})
		if round == 0 {
			machine.Close() // it is gone, in the other rounds only paused
		}
		spec.Store = s.freeze(sandboxID, 2*MiB)
		machine.Close()
		s.remove(sandboxID)
	}
	d := s.create(spec)
	for round := range byte(3) {
		if got := Read(s, d.Device, int64(round)*100, 1); got[0] != round+1 {
			s.Errorf("what round %d wrote is %d", round, got[0])
		}
	}
	s.remove(sandboxID)
}

// frozenDiverge: two disks of one frozen store are each other's strangers, and the file does not change.
func (s *suite) frozenDiverge() {
	base, _ := WriteImage(s, MiB)
	origin, one, two := s.newID(), s.newID(), s.newID()
	d := s.create(disk.Spec{ID: origin, Base: base, SizeBytes: 2 * MiB})
	Write(s, d.Device, 8192, bytes.Repeat([]byte("shared "), 2000))
	store := s.freeze(origin, 2*MiB)
	s.remove(origin)
	before := sha256.Sum256(read(s, store))
	then := s.flatten(base, store, 2*MiB)
	var disks []disk.Disk
	for _, sandboxID := range []string{one, two} {
		disks = append(disks, s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB, Store: store}))
	}
	for i, d := range disks {
		own := bytes.Clone(then)
		for _, at := range []int{8192, 100_000 * (i + 1), 2*MiB - 4096} {
			Write(s, d.Device, int64(at), []byte{'1' + byte(i)})
			own[at] = '1' + byte(i)
		}
		if !bytes.Equal(Read(s, d.Device, 0, 2*MiB), own) {
			s.Errorf("disk %d has something else than the store and its own", i)
		}
	}
	if got := Read(s, disks[0].Device, 8192, 1); got[0] != '1' {
		s.Errorf("disk 0 has %q of disk 1's", got)
	}
	s.remove(one)
	if sha256.Sum256(read(s, store)) != before {
		s.Error("the frozen store changed")
	}
	s.remove(two)
}

// frozenGenerations freezes and restores again and again, with random writes in between.
func (s *suite) frozenGenerations() {
	const size, generations, writes = 3 * MiB, 4, 30
	base, content := WriteImage(s, MiB)
	r := rand.New(rand.NewPCG(1, 2))
	model := append(bytes.Clone(content), make([]byte, size-MiB)...)
	spec := disk.Spec{Base: base, SizeBytes: size}
	for generation := range generations {
		spec.ID = s.newID()
		d := s.create(spec)
		if !bytes.Equal(Read(s, d.Device, 0, size), model) {
			s.Errorf("generation %d does not start with what the one before had", generation)
		}
		machine := Open(s, d.Device)
		for range writes {
			b := make([]byte, 1+r.IntN(30_000))
			if r.IntN(3) > 0 { // else zeros
				for i := range b {
					b[i] = byte(r.Uint32())
				}
			}
			at := r.IntN(size - len(b))
			copy(model[at:], b)
			WriteOpen(s, machine, int64(at), b)
		}
		spec.Store = s.freeze(spec.ID, size)
		machine.Close()
		s.remove(spec.ID)
		if !bytes.Equal(s.flatten(base, spec.Store, size), model) {
			s.Errorf("the flat image of generation %d differs from its disk", generation)
		}
	}
	s.unchanged(base, content)
}

// refused checks a call that must fail and leave no file.
func (s *suite) refused(name string, err, want error, path string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: %v, want %v", name, err, want)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		s.Errorf("%s: left %s (%v)", name, path, err)
	}
}

func (s *suite) freezeRefusals() {
	base, _ := WriteImage(s, MiB)
	sandboxID, dir := s.newID(), s.TempDir()
	dst, taken := filepath.Join(dir, "dst"), filepath.Join(dir, "taken")
	freeze := func(sandboxID, dst string) error {
		_, err := s.freezer().Freeze(s.Context(), sandboxID, dst)
		return err
	}
	s.refused("no disk", freeze(sandboxID, dst), errs.ErrNotFound, dst)
	s.refused("no id", freeze("../x", dst), errs.ErrInvalid, dst)
	s.create(disk.Spec{ID: sandboxID, Base: base})
	s.refused("no folder", freeze(sandboxID, dst+"/dst"), errs.ErrNotFound, dst)
	store := s.freeze(sandboxID, MiB)
	s.remove(sandboxID)
	s.refused("a removed disk", freeze(sandboxID, dst), errs.ErrNotFound, dst)

	if err := os.WriteFile(taken, []byte("theirs"), 0o600); err != nil {
		s.Fatal(err)
	}
	s.create(disk.Spec{ID: sandboxID, Base: base})
	if err := freeze(sandboxID, taken); !errors.Is(err, errs.ErrAlreadyExists) {
		s.Errorf("freeze to a file that is there: %v", err)
	}
	if err := s.freezer().Flatten(s.Context(), base, store, 0, taken); !errors.Is(err, errs.ErrAlreadyExists) {
		s.Errorf("flatten to a file that is there: %v", err)
	}
	if got := read(s, taken); string(got) != "theirs" {
		s.Errorf("the file that was there has %q", got)
	}
	s.remove(sandboxID)
}

// storeRefusals: what is no frozen store of such a disk makes neither a disk nor an image.
func (s *suite) storeRefusals() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB})
	good := read(s, s.freeze(sandboxID, 2*MiB))
	s.remove(sandboxID)
	path, dst := filepath.Join(s.TempDir(), "store"), filepath.Join(s.TempDir(), "dst")
	for name, tt := range map[string]struct {
		content []byte
		size    int64
		want    error
	}{
		"none":                    {nil, 2 * MiB, errs.ErrNotFound},
		"empty":                   {good[:0], 2 * MiB, errs.ErrCorrupt},
		"cut off":                 {good[:len(good)-4096], 2 * MiB, errs.ErrCorrupt},
		"too long":                {append(bytes.Clone(good), 0), 2 * MiB, errs.ErrCorrupt},
		"without header":          {append(make([]byte, 4096), good[4096:]...), 2 * MiB, errs.ErrCorrupt},
		"of a smaller disk":       {good, 3 * MiB, errs.ErrCorrupt},
		"of a larger disk":        {good, 0, errs.ErrCorrupt},
		"of a disk that can't be": {good, MiB - 1, errs.ErrInvalid},
	} {
		_ = os.Remove(path)
		if tt.content != nil {
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				s.Fatal(err)
			}
		}
		_, err := s.d.Create(s.Context(), disk.Spec{ID: sandboxID, Base: base, SizeBytes: tt.size, Store: path})
		s.refused(name, err, tt.want, filepath.Join(s.state, "sandboxes", sandboxID))
		s.refused(name, s.freezer().Flatten(s.Context(), base, path, tt.size, dst), tt.want, dst)
	}
}

// restoreTakenID: a disk that is there stays as it is, and so does the store.
func (s *suite) restoreTakenID() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	d := s.create(disk.Spec{ID: sandboxID, Base: base})
	store := s.freeze(sandboxID, MiB)
	before := sha256.Sum256(read(s, store))
	Write(s, d.Device, 0, []byte("still here"))
	if _, err := s.d.Create(s.Context(), disk.Spec{ID: sandboxID, Base: base, Store: store}); !errors.Is(err, errs.ErrAlreadyExists) {
		s.Errorf("a second disk of one id: %v", err)
	}
	if got := Read(s, d.Device, 0, 10); string(got) != "still here" {
		s.Errorf("the first disk has %q now", got)
	}
	s.remove(sandboxID)
	if sha256.Sum256(read(s, store)) != before {
		s.Error("the frozen store changed")
	}
}

func (s *suite) freezeEndedCaller() {
	base, _ := WriteImage(s, MiB)
	sandboxID, other, dst := s.newID(), s.newID(), filepath.Join(s.TempDir(), "dst")
	s.create(disk.Spec{ID: sandboxID, Base: base})
	store := s.freeze(sandboxID, MiB)
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(s.Context())
	cancel(why)
	_, err := s.freezer().Freeze(ctx, sandboxID, dst)
	s.refused("freeze", err, why, dst)
	s.refused("flatten", s.freezer().Flatten(ctx, base, store, 0, dst), why, dst)
	_, err = s.d.Create(ctx, disk.Spec{ID: other, Base: base, Store: store})
	s.refused("create", err, why, filepath.Join(s.state, "sandboxes", other))
	s.remove(sandboxID)
}
