// Package release is the one place that knows Firecracker's versions: which ones are supported, what differs between them,
// which holes they are known for, and the checksums of the binaries that are known to be what they claim.
//
// Firecracker and its jailer are one release and always used together, in the same version. When a new version comes out,
// this package is what changes.
package release

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Version is a release number of Firecracker.
type Version struct{ Major, Minor, Patch int }

// The supported versions: from Oldest up to the last patch of NewestMinor.
var (
	Oldest      = Version{1, 12, 0}
	NewestMinor = Version{1, 16, 0}
)

// maxVersionText bounds what ParseVersion reads: three numbers and a suffix of a development build.
const maxVersionText = 40

// ParseVersion reads "1.12.1" or "v1.12.1". A suffix after a hyphen, such as "-dev", is no release and is refused. It fails
// with errs.ErrInvalid.
func ParseVersion(s string) (Version, error) {
	bad := fmt.Errorf("version %.*q: want three numbers like 1.12.1: %w", maxVersionText, s, errs.ErrInvalid)
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	if len(s) > maxVersionText || len(parts) != 3 {
		return Version{}, bad
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return Version{}, bad
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// String is the version without a "v": "1.12.1".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare is negative when v is older than w, zero when they are the same, positive when v is newer.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch))
}

// Supported is nil for a version that this code drives, else an errs.ErrFailedPrecondition that names the range.
func (v Version) Supported() error {
	if v.Compare(Oldest) >= 0 && v.Major == NewestMinor.Major && v.Minor <= NewestMinor.Minor {
		return nil
	}
	return fmt.Errorf("version %v is not supported; install %d.%d to %d.%d: %w", v,
		Oldest.Major, Oldest.Minor, NewestMinor.Major, NewestMinor.Minor, errs.ErrFailedPrecondition)
}

// Features are the parts of the API that not every supported version has. A field that a version does not know makes it
// refuse the whole request, so what to send is chosen here and never by trying.
type Features struct {
	// SerialRateLimit: PUT /serial takes a rate limiter, so a guest that floods its console costs the host little.
	SerialRateLimit bool
	// TrackDirtyPages: PUT /snapshot/load has the field track_dirty_pages. Before, the same field is called
	// enable_diff_snapshots.
	TrackDirtyPages bool
	// DiffOfSlots: the memory file of a Diff snapshot is right although the guest's memory has several slots, which it has above
	// 3 GiB (upstream's #5705).
	DiffOfSlots bool
}

// OneSlotMiB is the most memory that is in one slot: above it, x86 has a hole for devices.
const OneSlotMiB = 3 << 10

// snapshotFormats are the versions of the state files by minor version of Firecracker. Every one is incompatible with every
// other.
var snapshotFormats = map[int]string{12: "6", 13: "8", 14: "8", 15: "9", 16: "10"}

// SnapshotFormat is the version of the state files that this version of Firecracker writes and reads.
func (v Version) SnapshotFormat() string { return snapshotFormats[v.Minor] }

// Features returns what the version can do.
func (v Version) Features() Features {
	return Features{
		SerialRateLimit: v.Compare(Version{1, 16, 0}) >= 0,
		TrackDirtyPages: v.Compare(Version{1, 13, 0}) >= 0,
		DiffOfSlots:     v.Compare(Version{1, 14, 2}) >= 0 && v != Version{1, 15, 0},
	}
}
