package manifest

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	buildA = "bd-aaaaaaaaaaaaaaaaaaaa"
	buildB = "bd-bbbbbbbbbbbbbbbbbbbb"
	buildC = "bd-cccccccccccccccccccc"
)

var digest = strings.Repeat("0a", 32)

func sample() *Manifest {
	return &Manifest{
		Version: Version, Build: buildB, Parent: buildA, Kind: Diff,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC),
		Host: Host{
			Firecracker: "1.16.1", SnapshotFormat: "10.0.0", CPUTemplate: "T2", KernelRelease: "6.12.9+deb13-amd64",
			CPU: CPU{"AuthenticAMD", 23, 1, 2},
		},
		Machine: Machine{
			Kernel: digest, Initramfs: digest, RootFS: digest, VCPUs: 2, MemoryMiB: 3, DiskBytes: 5 << 30,
			Devices: Devices{Drives: []Drive{{"root", false}, {"modules", true}}, NIC: true, Entropy: true},
		},
		Files: map[string]File{
			VMState:   {Size: 100, SHA256: digest},
			MemoryMap: {Size: 200, SHA256: digest},
			Memory:    {Size: 3 << 20, Chunks: []Chunk{{0, 4096, digest}, {2 << 20, 1 << 20, digest}}},
			Disk:      {Size: 1<<20 + 1, Chunks: []Chunk{{1 << 20, 1, digest}}},
		},
		Needs: []Need{{buildA, digest}, {buildC, digest}},
	}
}

func encode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	for _, change := range []func(*Manifest){
		func(*Manifest) {},
		func(m *Manifest) { m.Parent, m.Needs, m.Kind = "", nil, Full },
		func(m *Manifest) { m.Host.Firecracker = `<&>"\` },
	} {
		m := sample()
		change(m)
		data := encode(t, m)
		got, sum, err := Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got); d != "" || sum != Digest(data) {
			t.Errorf("%s %s", d, sum)
		}
	}
}

func TestAnyFlippedOrCutByteIsNoticed(t *testing.T) {
	good := encode(t, sample())
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := Decode(bad); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := Decode(good[:i]); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// seal gives a text a right checksum.
func seal(doc string) []byte { return []byte(doc + trailer([]byte(doc))) }

func TestDecodeRefusesOtherTexts(t *testing.T) {
	good := encode(t, sample())
	doc := string(good[:len(good)-trailerBytes])
	for name, c := range map[string]struct {
		old, new string
		want     error
	}{
		"unknown field":  {`{"version":1`, `{"version":1,"extra":1`, errs.ErrCorrupt},
		"field twice":    {`{"version":1`, `{"version":1,"version":1`, errs.ErrCorrupt},
		"other letters":  {`"kind":`, `"Kind":`, errs.ErrCorrupt},
		"space":          {`"kind":`, `"kind": `, errs.ErrCorrupt},
		"trailing":       {"}\n", "}{}\n", errs.ErrCorrupt},
		"no json":        {`{"version"`, `{version`, errs.ErrCorrupt},
		"newer version":  {`{"version":1`, `{"version":2,"extra":1`, errs.ErrFailedPrecondition},
		"path for an id": {buildA, "bd-../../../../../../..", errs.ErrCorrupt},
	} {
		text := strings.Replace(doc, c.old, c.new, 1)
		if text == doc {
			t.Fatalf("%s changed nothing", name)
		}
		if m, err := Decode(seal(text)); m != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	file := func(name string, f File) func(*Manifest) { return func(m *Manifest) { m.Files[name] = f } }
	for name, change := range map[string]func(*Manifest){
		"version":         func(m *Manifest) { m.Version = 2 },
		"build":           func(m *Manifest) { m.Build = "x" },
		"parent":          func(m *Manifest) { m.Parent = "x" },
		"no time":         func(m *Manifest) { m.Created = time.Time{} },
		"zone":            func(m *Manifest) { m.Created = m.Created.In(time.FixedZone("x", 3600)) },
		"kind":            func(m *Manifest) { m.Kind = "half" },
		"no firecracker":  func(m *Manifest) { m.Host.Firecracker = "" },
		"control letters": func(m *Manifest) { m.Host.KernelRelease = "6.1\x1b[2J" },
		"template":        func(m *Manifest) { m.Host.CPUTemplate = "\n" },
		"cpu":             func(m *Manifest) { m.Host.CPU.Model = -1 },
		"no rootfs":       func(m *Manifest) { m.Machine.RootFS = "" },
		"digest":          func(m *Manifest) { m.Machine.Modules = "abc" },
		"vcpus":           func(m *Manifest) { m.Machine.VCPUs = 0 },
		"memory":          func(m *Manifest) { m.Machine.MemoryMiB = 0 },
		"memory too much": func(m *Manifest) { m.Machine.MemoryMiB = 1<<20 + 1 },
		"disk":            func(m *Manifest) { m.Machine.DiskBytes = -1 },
		"drive":           func(m *Manifest) { m.Machine.Devices.Drives[0].ID = "../x" },
		"drives":          func(m *Manifest) { m.Machine.Devices.Drives = make([]Drive, maxDrives+1) },
		"file missing":    func(m *Manifest) { delete(m.Files, Disk) },
		"file too many":   file("../x", File{Size: 1, SHA256: digest}),
		"memory's size":   file(Memory, File{Size: 1 << 20}),
		"negative":        file(VMState, File{Size: -1, SHA256: digest}),
		"no digest":       file(VMState, File{Size: 1}),
		"digest of disk":  file(Disk, File{Size: 1, SHA256: digest}),
		"chunks of state": file(VMState, File{Size: 1, SHA256: digest, Chunks: []Chunk{{0, 1, digest}}}),
		"chunk twice":     file(Disk, File{Size: 2 << 20, Chunks: []Chunk{{0, 1, digest}, {0, 1, digest}}}),
		"chunk beyond":    file(Disk, File{Size: 1 << 20, Chunks: []Chunk{{1 << 20, 1, digest}}}),
		"chunk too long":  file(Disk, File{Size: 100, Chunks: []Chunk{{0, 101, digest}}}),
		"chunk at odds":   file(Disk, File{Size: 100, Chunks: []Chunk{{1, 1, digest}}}),
		"chunk empty":     file(Disk, File{Size: 100, Chunks: []Chunk{{0, 0, digest}}}),
		"needs itself":    func(m *Manifest) { m.Needs = []Need{{buildB, digest}} },
		"needs order":     func(m *Manifest) { slices.Reverse(m.Needs) },
		"needs bad id":    func(m *Manifest) { m.Needs[0].Build = "x" },
		"needs no digest": func(m *Manifest) { m.Needs[0].Manifest = "" },
	} {
		m := sample()
		change(m)
		if data, err := m.Encode(); data != nil || !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFitsListsEachDifference(t *testing.T) {
	m := sample()
	if err := errors.Join(m.Fits(m.Host), m.FitsMachine(m.Machine)); err != nil {
		t.Fatal(err)
	}
	host := m.Host
	host.CPU, host.CPUTemplate = CPU{"GenuineIntel", 6, 85, 4}, ""
	err := m.Fits(host)
	for _, want := range []string{"cpu model: snapshot AuthenticAMD 23/1/2, host GenuineIntel 6/85/4", "cpu template: snapshot T2, host none"} {
		if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func TestFitsLooksAtEverything(t *testing.T) {
	m := sample()
	for name, change := range map[string]func(*Host){
		"firecracker":     func(h *Host) { h.Firecracker = "1.16.2" },
		"snapshot format": func(h *Host) { h.SnapshotFormat = "10.1.0" },
		"vendor":          func(h *Host) { h.CPU.Vendor = "GenuineIntel" },
		"family":          func(h *Host) { h.CPU.Family++ },
		"model":           func(h *Host) { h.CPU.Model++ },
		"stepping":        func(h *Host) { h.CPU.Stepping++ },
		"template":        func(h *Host) { h.CPUTemplate = "T2A" },
		"kernel":          func(h *Host) { h.KernelRelease = "6.1" },
	} {
		host := m.Host
		change(&host)
		if err := m.Fits(host); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := strings.Repeat("ff", 32)
	for name, change := range map[string]func(*Machine){
		"kernel":    func(w *Machine) { w.Kernel = other },
		"initramfs": func(w *Machine) { w.Initramfs = other },
		"modules":   func(w *Machine) { w.Modules = other },
		"rootfs":    func(w *Machine) { w.RootFS = other },
		"vcpus":     func(w *Machine) { w.VCPUs++ },
		"memory":    func(w *Machine) { w.MemoryMiB++ },
		"disk":      func(w *Machine) { w.DiskBytes++ },
		"nic":       func(w *Machine) { w.Devices.NIC = false },
		"entropy":   func(w *Machine) { w.Devices.Entropy = false },
		"balloon":   func(w *Machine) { w.Devices.Balloon = true },
		"order":     func(w *Machine) { w.Devices.Drives = []Drive{{"modules", true}, {"root", false}} },
		"read-only": func(w *Machine) { w.Devices.Drives = []Drive{{"root", true}, {"modules", true}} },
	} {
		want := m.Machine
		change(&want)
		if err := m.FitsMachine(want); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good := encode(f, sample())
	f.Add(string(good[:len(good)-trailerBytes]))
	f.Fuzz(func(t *testing.T, doc string) {
		data := seal(doc)
		m, err := Decode(data)
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, errs.ErrFailedPrecondition) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(encode(t, m), data) {
			t.Fatal("another encoding was accepted")
		}
	})
}

// TestDocumentedExample holds the document to the encoder: its example is a manifest, and in the encoder's own form.
func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/snapshot-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(doc), "```json manifest\n")
	if !ok {
		t.Fatal("the document has no example of a manifest")
	}
	text, _, _ := strings.Cut(block, "```")
	m, err := Decode([]byte(text))
	if err != nil {
		t.Fatalf("%v; the sample is\n%s", err, encode(t, sample()))
	}
	if got := encode(t, m); string(got) != text {
		t.Errorf("the encoder writes\n%s", got)
	}
}
