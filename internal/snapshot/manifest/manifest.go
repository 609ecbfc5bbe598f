// Package manifest is the document of a build: what was frozen, on what host it was, what it needs, and the digest of
// every file. A build without one is none, which is why it is written last.
//
// The encoding is two lines of JSON: the document, and the sha256 of the first line with its newline. A document has one
// encoding only. docs/snapshot-format.md describes it.
package manifest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Version is the version of the document that this code writes and reads.
const Version = 1

// The files of a build, by their names.
const (
	VMState   = "vmstate"    // Firecracker's own state
	Memory    = "memory"     // the pages of this generation, sparse
	MemoryMap = "memory.map" // where every page is
	Disk      = "disk"       // the disk's exception store, sparse
	Name      = "manifest"   // this document
)

// Names are the files that a manifest tells of.
func Names() []string { return []string{Disk, Memory, MemoryMap, VMState} }

// Kind is what Firecracker was asked to write.
type Kind string

// The kinds.
const (
	Full Kind = "full" // every page
	Diff Kind = "diff" // the pages written since the one before
)

// Manifest is the document.
type Manifest struct {
	Version int       `json:"version"` // Version
	Build   string    `json:"build"`
	Created time.Time `json:"created"` // UTC
	// Parent is the build that the frozen machine was started from, empty for a boot. It tells where the build comes from;
	// what of it is still needed is in Needs.
	Parent  string          `json:"parent,omitempty"`
	Kind    Kind            `json:"kind"`
	Host    Host            `json:"host"`
	Machine Machine         `json:"machine"`
	Files   map[string]File `json:"files"`
	// Needs are the builds that the block map refers to, sorted by id.
	Needs []Need `json:"needs,omitempty"`
}

// Host is what of a host a frozen machine depends on.
type Host struct {
	Firecracker    string `json:"firecracker"`            // "1.16.1"
	SnapshotFormat string `json:"snapshot_format"`        // as Firecracker says it: "10.0.0"
	CPU            CPU    `json:"cpu"`                    // of the host
	CPUTemplate    string `json:"cpu_template,omitempty"` // that Firecracker was given, empty for none
	KernelRelease  string `json:"kernel_release"`         // uname -r
}

// CPU is a processor as CPUID tells of it.
type CPU struct {
	Vendor   string `json:"vendor"` // "GenuineIntel"
	Family   int    `json:"family"`
	Model    int    `json:"model"`
	Stepping int    `json:"stepping"`
}

// String is for people: vendor, family/model/stepping.
func (c CPU) String() string {
	return fmt.Sprintf("%s %d/%d/%d", c.Vendor, c.Family, c.Model, c.Stepping)
}

// Machine is what the frozen machine was made of. Digests are sha256 in 64 hex digits, empty for a part that it has not.
type Machine struct {
	Kernel    string  `json:"kernel"`
	Initramfs string  `json:"initramfs,omitempty"`
	Modules   string  `json:"modules,omitempty"`
	RootFS    string  `json:"rootfs"`
	Devices   Devices `json:"devices"`
	VCPUs     int     `json:"vcpus"`
	MemoryMiB int     `json:"memory_mib"`
	DiskBytes int64   `json:"disk_bytes"` // as the guest sees its disk
}

// Devices is what is plugged in.
type Devices struct {
	Drives  []Drive `json:"drives"` // in the guest's order
	NIC     bool    `json:"nic"`
	Entropy bool    `json:"entropy"`
	Balloon bool    `json:"balloon"`
}

// Drive is a block device.
type Drive struct {
	ID       string `json:"id"`
	ReadOnly bool   `json:"read_only"`
}

// File is the length and digest of a file: of the whole, or of its chunks.
type File struct {
	Size   int64   `json:"size"`
	SHA256 string  `json:"sha256,omitempty"`
	Chunks []Chunk `json:"chunks,omitempty"`
}

// ChunkSize is how long the piece of a file is that has one digest.
const ChunkSize = 1 << 20

// Chunk is the digest of a piece of a sparse file that has data.
type Chunk struct {
	// Offset is where the piece starts, a multiple of ChunkSize.
	Offset int64 `json:"offset"`
	// Bytes is how much of it is hashed: of a memory file the pages that the build keeps, in order; else the whole piece.
	Bytes int64 `json:"bytes"`
	// SHA256 is the digest, in hex.
	SHA256 string `json:"sha256"`
}

// Need is another build without which this one is not whole.
type Need struct {
	Build string `json:"build"`
	// Manifest is the sha256 of that build's manifest file: the build that was meant, not one that took its name.
	Manifest string `json:"manifest"`
}

// Chunked tells whether a file has a digest for each chunk and not one for the whole.
func Chunked(name string) bool { return name == Memory || name == Disk }

// Pages is how many pages of 4096 bytes the memory has.
func (m Machine) Pages() int64 { return int64(m.MemoryMiB) << 8 }

// differences is a list of what does not fit, for a person.
type differences []string

func (d *differences) compare(what string, snapshot, host any) {
	if s, h := text(snapshot), text(host); s != h {
		*d = append(*d, fmt.Sprintf("%s: snapshot %s, host %s", what, s, h))
	}
}

// text is a value for a person.
func text(v any) string {
	if s := fmt.Sprint(v); s != "" {
		return s
	}
	return "none"
}

// String is for people.
func (d Drive) String() string {
	if d.ReadOnly {
		return d.ID + " read-only"
	}
	return d.ID
}

// String is for people: all that is plugged in.
func (d Devices) String() string {
	parts := []string{}
	for _, drive := range d.Drives {
		parts = append(parts, "drive "+drive.String())
	}
	for name, has := range map[string]bool{"nic": d.NIC, "entropy": d.Entropy, "balloon": d.Balloon} {
		if has {
			parts = append(parts, name)
		}
	}
	slices.Sort(parts[len(d.Drives):])
	return strings.Join(parts, ", ")
}
