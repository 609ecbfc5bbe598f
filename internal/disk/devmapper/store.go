package devmapper

import (
	"fmt"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/errs"
)

// The store of a disk's changes is the one that dm-snapshot calls persistent: a header chunk, then areas of one metadata
// chunk and the data chunks that it describes, 16 bytes each. It is what is left of a disk when its device is gone.
const (
	chunkBytes   = 4096
	chunkSectors = chunkBytes / dm.SectorBytes
	entryBytes   = 16
	areaChunks   = chunkBytes / entryBytes // data chunks an area
)

// maxDeviceBytes keeps the store's size, too, within what ext4 allows of a file.
const maxDeviceBytes = 8 << 40

// storeBytes is the size of a store that a device of this size can't overflow although every chunk of it is rewritten.
//
// The kernel clears the next area's metadata as soon as an area is full, so there is one metadata chunk more than areas
// full of data: without it, the very last write would fail.
func storeBytes(deviceBytes int64) int64 {
	chunks := (deviceBytes + chunkBytes - 1) / chunkBytes
	areas := chunks/areaChunks + 1
	return (1 + areas + chunks) * chunkBytes
}

// deviceBytes is the size of the device that a Spec asks for over a base of this size.
func deviceBytes(asked, base int64) (int64, error) {
	if asked == 0 {
		asked = base
	}
	switch {
	case asked < base:
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is less than the image's %d", asked, base),
			"give at least the image's size")
	case asked > maxDeviceBytes:
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is too much", asked), fmt.Sprintf("give at most %d", int64(maxDeviceBytes)))
	}
	return (asked + chunkBytes - 1) / chunkBytes * chunkBytes, nil
}

// parseStatus reads what the snapshot target says of itself: "used/capacity metadata" in sectors, or in a word what is wrong.
func parseStatus(s string) (disk.Usage, error) {
	switch s {
	case "Invalid", "Overflow", "Merge failed":
		return disk.Usage{Failed: true}, nil
	}
	share, metadata, ok1 := strings.Cut(s, " ")
	used, capacity, ok2 := strings.Cut(share, "/")
	u, err1 := sectors(used)
	c, err2 := sectors(capacity)
	_, err3 := sectors(metadata)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || err3 != nil || u > c {
		return disk.Usage{}, fmt.Errorf("snapshot status %.80q: %w", s, errs.ErrCorrupt)
	}
	return disk.Usage{UsedBytes: u, CapacityBytes: c}, nil
}

// sectors reads a count of sectors as bytes.
func sectors(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63-9)
	return int64(n) * dm.SectorBytes, err
}
