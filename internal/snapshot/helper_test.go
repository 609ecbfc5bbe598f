package snapshot

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

const (
	pageSize = blockmap.PageSize
	pages    = 256 // 1 MiB: the smallest memory
)

// fataler is what testing.T and rapid.T have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// memory is a guest's memory: a page is filled with its number, all zero for 0.
type memory [pages]uint64

func fill(n uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), pageSize/8)
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "builds"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func infoOf(kind manifest.Kind) Info {
	digest := strings.Repeat("0a", 32)
	return Info{
		Kind: kind,
		Host: manifest.Host{Firecracker: "1.16.1", SnapshotFormat: "10.0.0", KernelRelease: "6.12", CPU: manifest.CPU{Vendor: "AuthenticAMD", Family: 23}},
		Machine: manifest.Machine{
			Kernel: digest, RootFS: digest, VCPUs: 1, MemoryMiB: pages * pageSize >> 20, DiskBytes: 1 << 30,
			Devices: manifest.Devices{Drives: []manifest.Drive{{ID: "root"}}},
		},
	}
}

// stage begins a build and puts its files there, as Firecracker writes them: the memory file has the pages of dirty, zero ones
// too, and holes for all others; all pages for a full snapshot.
func stage(t fataler, s *Store, parent string, mem *memory, dirty map[int]bool, kind manifest.Kind) *Staging {
	t.Helper()
	g, err := s.Begin(bg, blockmap.NewBuildID(), parent)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(g.Path(manifest.Memory))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(pages * pageSize); err != nil {
		t.Fatal(err)
	}
	for p, n := range mem {
		if dirty[p] || kind == manifest.Full {
			if _, err := f.WriteAt(fill(n), int64(p)*pageSize); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, at := range map[string]int64{manifest.VMState: 0, manifest.Disk: 1 << 20} {
		f, err := os.Create(g.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(name+" of "+g.ID()), at); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// commit stages and commits a diff.
func commit(t fataler, s *Store, parent string, mem *memory, dirty map[int]bool, refs ...Ref) *Build {
	t.Helper()
	g := stage(t, s, parent, mem, dirty, manifest.Diff)
	b, _, err := g.Commit(bg, infoOf(manifest.Diff), refs...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkMemory opens a build and compares all of its memory.
func checkMemory(t fataler, s *Store, build string, want *memory) {
	t.Helper()
	b, err := s.Open(bg, build)
	if err != nil {
		t.Fatal(err)
	}
	r := b.Pages()
	defer r.Close()
	buf := make([]byte, pages*pageSize)
	if err := r.ReadPages(0, buf); err != nil {
		t.Fatal(err)
	}
	for p, n := range want {
		if got := buf[p*pageSize:][:pageSize]; !bytes.Equal(got, fill(n)) {
			t.Fatalf("build %s: page %d is %x…, want %d", build, p, got[:16], n)
		}
	}
}

// pagesOf is a set of pages.
func pagesOf(list ...int) map[int]bool {
	set := map[int]bool{}
	for _, p := range list {
		set[p] = true
	}
	return set
}

// rootNames are the entries of the store's folder that are neither builds nor always there.
func rootNames(t fataler, s *Store) (names []string) {
	t.Helper()
	for _, pattern := range []string{".*", refsName + "/*/.*"} {
		found, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}
