package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/disk/devmapper/exception"
	"wrenn.dev/wrenn/internal/errs"
)

// deviceBytes is the size of the device that a Spec asks for over a base of this size.
func deviceBytes(asked, base int64) (int64, error) {
	if asked == 0 {
		asked = base
	}
	switch {
	case asked < base:
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is less than the image's %d", asked, base),
			"give at least the image's size")
	case asked > disk.MaxSizeBytes:
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is too much", asked), fmt.Sprintf("give at most %d", int64(disk.MaxSizeBytes)))
	}
	return (asked + exception.ChunkBytes - 1) / exception.ChunkBytes * exception.ChunkBytes, nil
}

// storeBytes is the size of the store of a device of this size.
func (d *Driver) storeBytes(deviceBytes int64) int64 {
	size := exception.StoreBytes(deviceBytes)
	if d.cfg.storeLimit > 0 {
		size = min(size, d.cfg.storeLimit)
	}
	return size
}

// openStore opens the store of a device of this size, and refuses a file that is none: ErrNotFound, ErrCorrupt.
func (d *Driver) openStore(path string, deviceBytes int64) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store %s: %w: %w", path, err, errs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := d.checkStore(f, deviceBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, err), f.Close())
	}
	return f, nil
}

func (d *Driver) checkStore(f *os.File, deviceBytes int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is no file: %w", errs.ErrCorrupt)
	}
	if want := d.storeBytes(deviceBytes); info.Size() != want {
		return fmt.Errorf("it has %d bytes, that of a disk of %d bytes has %d: %w", info.Size(), deviceBytes, want, errs.ErrCorrupt)
	}
	return exception.CheckHeader(f)
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
