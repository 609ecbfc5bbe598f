// Package disktest is what every implementation of disk.Driver must pass, and a driver without a kernel for the tests of
// what uses disks.
package disktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// MiB is the unit of the suite's sizes.
const MiB = 1 << 20

// Run checks the contract of disk.Driver, and that of disk.Freezer for a driver that is one. open returns a driver on a state that is empty at first; called again in one
// test with the same state folder, it returns another driver on the same state, as another process has.
func Run(t *testing.T, open func(t *testing.T, stateDir string) disk.Driver) {
	for name, test := range testsOf(open(t, t.TempDir())) {
		t.Run(name, func(t *testing.T) {
			s := &suite{T: t, state: t.TempDir(), open: open}
			s.d = open(t, s.state)
			test(s)
			s.nothingListed()
		})
	}
}

// driverTests are the suite of disk.Driver.
var driverTests = map[string]func(*suite){
	"ContentAndGrowth":  (*suite).contentAndGrowth,
	"Isolation":         (*suite).isolation,
	"FullRewrite":       (*suite).fullRewrite,
	"OddImage":          (*suite).oddImage,
	"Refusals":          (*suite).refusals,
	"TakenID":           (*suite).takenID,
	"Removal":           (*suite).removal,
	"AnotherProcess":    (*suite).anotherProcess,
	"ManyAtOnce":        (*suite).manyAtOnce,
	"EndedContext":      (*suite).endedContext,
	"UsageGrows":        (*suite).usageGrows,
	"RemoveWhileOthers": (*suite).removeWhileOthers,
}

type suite struct {
	*testing.T
	state string
	open  func(t *testing.T, stateDir string) disk.Driver
	d     disk.Driver
	ids   []string // all that the test made up
}

func (s *suite) newID() string {
	s.ids = append(s.ids, id.New())
	return s.ids[len(s.ids)-1]
}

// WriteImage makes an image of random content in a folder of the test, and returns it with its content.
func WriteImage(t testing.TB, size int) (disk.Base, []byte) {
	t.Helper()
	content := make([]byte, size)
	r := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	_, _ = r.Read(content) // never fails
	sum := sha256.Sum256(content)
	b := disk.Base{Digest: hex.EncodeToString(sum[:]), Path: filepath.Join(t.TempDir(), "image")}
	if err := os.WriteFile(b.Path, content, 0o444); err != nil {
		t.Fatal(err)
	}
	return b, content
}

func (s *suite) create(spec disk.Spec) disk.Disk {
	s.Helper()
	d, err := s.d.Create(s.Context(), spec)
	if err != nil {
		s.Fatalf("create: %v", err)
	}
	return d
}

func (s *suite) remove(ids ...string) {
	s.Helper()
	for _, sandboxID := range ids {
		if err := s.d.Remove(s.Context(), sandboxID); err != nil {
			s.Fatalf("remove: %v", err)
		}
	}
}

// listed are the disks of this test that a driver lists. Others of the host are not the test's business.
func (s *suite) listed(d disk.Driver) []string {
	s.Helper()
	ids, err := d.List(s.Context())
	if err != nil {
		s.Fatalf("list: %v", err)
	}
	return slices.DeleteFunc(ids, func(sandboxID string) bool { return !slices.Contains(s.ids, sandboxID) })
}

func (s *suite) nothingListed() {
	s.Helper()
	if ids := s.listed(s.d); len(ids) != 0 {
		s.Errorf("the driver lists %v at the end", ids)
	}
}

// Read returns n bytes of a device from offset.
func Read(t testing.TB, device string, offset int64, n int) []byte {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatalf("read %d bytes at %d of %s: %v", n, offset, device, err)
	}
	return b
}

// Write writes to a device and waits until it is there.
func Write(t testing.TB, device string, offset int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatalf("write %d bytes at %d of %s: %v", len(b), offset, device, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatalf("write to %s: %v", device, err)
	}
}

func size(t testing.TB, device string) int64 {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unchanged checks that an image still has its content.
func (s *suite) unchanged(b disk.Base, content []byte) {
	s.Helper()
	now, err := os.ReadFile(b.Path)
	if err != nil || !bytes.Equal(now, content) {
		s.Errorf("the image changed (%v)", err)
	}
}

func (s *suite) contentAndGrowth() {
	base, content := WriteImage(s, MiB)
	for name, asked := range map[string]int64{"as large": 0, "larger": 3*MiB + 1} {
		sandboxID := s.newID()
		d := s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: asked})
		want := int64(MiB)
		if asked > 0 {
			want = 3*MiB + 4096
		}
		if got := size(s, d.Device); got != want || d.SizeBytes != want {
			s.Errorf("%s: the device has %d bytes and Create says %d, want %d", name, got, d.SizeBytes, want)
		}
		if !bytes.Equal(Read(s, d.Device, 0, MiB), content) {
			s.Errorf("%s: the device does not start with the image", name)
		}
		if rest := Read(s, d.Device, MiB, int(want)-MiB); !bytes.Equal(rest, make([]byte, len(rest))) {
			s.Errorf("%s: the device is not zero beyond the image", name)
		}
		s.remove(sandboxID)
	}
}

func (s *suite) isolation() {
	base, content := WriteImage(s, MiB)
	one, two := s.newID(), s.newID()
	a := s.create(disk.Spec{ID: one, Base: base, SizeBytes: 2 * MiB})
	b := s.create(disk.Spec{ID: two, Base: base, SizeBytes: 2 * MiB})
	mine := bytes.Repeat([]byte("one's own"), 1000)
	for _, offset := range []int64{0, 4096*3 + 512, MiB - 512, 2*MiB - int64(len(mine))} {
		Write(s, a.Device, offset, mine)
		if !bytes.Equal(Read(s, a.Device, offset, len(mine)), mine) {
			s.Errorf("what was written at %d does not read back", offset)
		}
	}
	if !bytes.Equal(Read(s, b.Device, 0, MiB), content) {
		s.Error("one disk's writes show in another")
	}
	s.unchanged(base, content)
	s.remove(one)
	c := s.create(disk.Spec{ID: one, Base: base})
	if !bytes.Equal(Read(s, c.Device, 0, MiB), content) {
		s.Error("a new disk shows what an old one of the same id wrote")
	}
	s.remove(one, two)
	s.unchanged(base, content)
}

// fullRewrite writes every block, the image's and those beyond, twice: the store must hold it.
func (s *suite) fullRewrite() {
	base, content := WriteImage(s, MiB)
	sandboxID := s.newID()
	d := s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB})
	for round := range byte(2) {
		b := bytes.Repeat([]byte{'a' + round}, 2*MiB)
		Write(s, d.Device, 0, b)
		if !bytes.Equal(Read(s, d.Device, 0, 2*MiB), b) {
			s.Errorf("round %d does not read back", round)
		}
	}
	u, err := s.d.Usage(s.Context(), sandboxID)
	if err != nil || u.Failed || u.UsedBytes < 2*MiB || u.UsedBytes > u.CapacityBytes || u.HostBytes < 2*MiB {
		s.Errorf("usage %+v, %v", u, err)
	}
	s.remove(sandboxID)
	s.unchanged(base, content)
}

// oddImage has an image that ends within a block.
func (s *suite) oddImage() {
	base, content := WriteImage(s, MiB+512)
	sandboxID := s.newID()
	d := s.create(disk.Spec{ID: sandboxID, Base: base})
	if want := int64(MiB + 4096); d.SizeBytes != want || size(s, d.Device) != want {
		s.Errorf("%d bytes, want %d", d.SizeBytes, want)
	}
	if !bytes.Equal(Read(s, d.Device, 0, MiB+4096), append(content, make([]byte, 4096-512)...)) {
		s.Error("the device is not the image and zeros")
	}
	s.remove(sandboxID)
}

func (s *suite) refusals() {
	base, _ := WriteImage(s, MiB)
	good := disk.Spec{ID: s.newID(), Base: base}
	for name, tt := range map[string]struct {
		change func(*disk.Spec)
		want   error
	}{
		"id":        {func(s *disk.Spec) { s.ID = "../x" }, errs.ErrInvalid},
		"digest":    {func(s *disk.Spec) { s.Base.Digest = "x" }, errs.ErrInvalid},
		"too small": {func(s *disk.Spec) { s.SizeBytes = MiB - 1 }, errs.ErrInvalid},
		"too large": {func(s *disk.Spec) { s.SizeBytes = disk.MaxSizeBytes + 1 }, errs.ErrInvalid},
		"negative":  {func(s *disk.Spec) { s.SizeBytes = -1 }, errs.ErrInvalid},
		"no image":  {func(s *disk.Spec) { s.Base.Path += ".none" }, errs.ErrNotFound},
	} {
		spec := good
		tt.change(&spec)
		if _, err := s.d.Create(s.Context(), spec); !errors.Is(err, tt.want) {
			s.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := s.d.Usage(s.Context(), good.ID); !errors.Is(err, errs.ErrNotFound) {
		s.Errorf("usage of no disk: %v", err)
	}
	if err := s.d.Remove(s.Context(), "../x"); !errors.Is(err, errs.ErrInvalid) {
		s.Errorf("remove of no id: %v", err)
	}
}

// takenID: the second Create fails and does the first one's disk no harm.
func (s *suite) takenID() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	d := s.create(disk.Spec{ID: sandboxID, Base: base})
	Write(s, d.Device, 0, []byte("still here"))
	if _, err := s.d.Create(s.Context(), disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB}); !errors.Is(err, errs.ErrAlreadyExists) {
		s.Errorf("a second disk of one id: %v", err)
	}
	if got := Read(s, d.Device, 0, 10); string(got) != "still here" {
		s.Errorf("the first disk has %q now", got)
	}
	s.remove(sandboxID)
}

func (s *suite) removal() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	s.remove(sandboxID)
	s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: 2 * MiB})
	if ids := s.listed(s.d); !slices.Equal(ids, []string{sandboxID}) {
		s.Errorf("the driver lists %v", ids)
	}
	s.remove(sandboxID, sandboxID)
	if _, err := s.d.Usage(s.Context(), sandboxID); !errors.Is(err, errs.ErrNotFound) {
		s.Errorf("usage of a removed disk: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.state, "sandboxes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) != 0 {
		s.Errorf("left in the state folder: %v, %v", entries, err)
	}
}

func (s *suite) anotherProcess() {
	base, content := WriteImage(s, MiB)
	one, two := s.newID(), s.newID()
	s.create(disk.Spec{ID: one, Base: base})
	other := s.open(s.T, s.state)
	d, err := other.Create(s.Context(), disk.Spec{ID: two, Base: base})
	if err != nil {
		s.Fatal(err)
	}
	if ids := s.listed(other); len(ids) != 2 {
		s.Errorf("the other process sees %v", ids)
	}
	if err := other.Remove(s.Context(), one); err != nil {
		s.Error(err)
	}
	if !bytes.Equal(Read(s, d.Device, 0, MiB), content) {
		s.Error("the other disk suffered")
	}
	s.remove(two)
}

func (s *suite) manyAtOnce() {
	const many = 6
	base, content := WriteImage(s, MiB)
	ids := make([]string, many)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = s.newID()
		wg.Go(func() {
			d, err := s.d.Create(s.Context(), disk.Spec{ID: ids[i], Base: base, SizeBytes: int64(1+i%2) * MiB})
			if err != nil {
				s.Errorf("create %d of %d: %v", i, many, err)
				return
			}
			own := fmt.Appendf(nil, "%04d", i)
			Write(s, d.Device, 4096, own)
			if got := Read(s, d.Device, 0, 4100); !bytes.Equal(got[:4096], content[:4096]) || !bytes.Equal(got[4096:], own) {
				s.Errorf("disk %d has something else", i)
			}
		})
	}
	wg.Wait()
	for _, sandboxID := range ids {
		wg.Go(func() {
			if err := s.d.Remove(s.Context(), sandboxID); err != nil {
				s.Errorf("remove: %v", err)
			}
		})
	}
	wg.Wait()
	s.unchanged(base, content)
}

func (s *suite) endedContext() {
	base, _ := WriteImage(s, MiB)
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(s.Context())
	cancel(why)
	if _, err := s.d.Create(ctx, disk.Spec{ID: s.newID(), Base: base}); !errors.Is(err, why) {
		s.Errorf("create for a caller who left: %v", err)
	}
}

func (s *suite) usageGrows() {
	base, _ := WriteImage(s, MiB)
	sandboxID := s.newID()
	d := s.create(disk.Spec{ID: sandboxID, Base: base, SizeBytes: 8 * MiB})
	before, err := s.d.Usage(s.Context(), sandboxID)
	if err != nil {
		s.Fatal(err)
	}
	Write(s, d.Device, 2*MiB, bytes.Repeat([]byte{1}, 2*MiB))
	after, err := s.d.Usage(s.Context(), sandboxID)
	if err != nil {
		s.Fatal(err)
	}
	if grown := after.UsedBytes - before.UsedBytes; grown < 2*MiB || grown > 2*MiB+64<<10 {
		s.Errorf("writing 2 MiB took %d bytes of the store: %+v, then %+v", grown, before, after)
	}
	if grown := after.HostBytes - before.HostBytes; grown < 2*MiB || grown > 3*MiB {
		s.Errorf("writing 2 MiB took %d bytes of the host: %+v, then %+v", grown, before, after)
	}
	if after.Failed || after.CapacityBytes != before.CapacityBytes || after.CapacityBytes < 8*MiB {
		s.Errorf("usage %+v, then %+v", before, after)
	}
	s.remove(sandboxID)
}

// removeWhileOthers: a disk that goes takes nothing from those that share its image.
func (s *suite) removeWhileOthers() {
	base, content := WriteImage(s, MiB)
	one, two, three := s.newID(), s.newID(), s.newID()
	s.create(disk.Spec{ID: one, Base: base})
	b := s.create(disk.Spec{ID: two, Base: base})
	s.remove(one)
	c := s.create(disk.Spec{ID: three, Base: base})
	for _, d := range []disk.Disk{b, c} {
		if !bytes.Equal(Read(s, d.Device, 0, MiB), content) {
			s.Error("a disk lost its image")
		}
	}
	s.remove(two, three)
}
