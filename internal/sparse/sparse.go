// Package sparse works on files with holes: where their data is, copies that keep the holes or share the blocks, and making holes.
//
// It is a leaf package.
package sparse

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// Walk calls data for each run of data of f, in order, widened to multiples of unit (and cut at the end of the file); runs
// that then touch are not joined, but none overlaps another. data may make holes behind the end of the run that it was given.
// Walk ends between two runs when ctx does.
func Walk(ctx context.Context, f *os.File, unit int64, data func(start, end int64) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	for at := int64(0); at < size; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		start, end, err := Next(f, at, size)
		if err != nil {
			return err
		}
		if start == size {
			return nil
		}
		start, end = max(at, start/unit*unit), min(size, (end+unit-1)/unit*unit)
		if err := data(start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// Next finds the first run of data at or after at; both ends are size when only a hole is left.
func Next(f *os.File, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find data in %s: %w", f.Name(), err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find holes in %s: %w", f.Name(), err)
	}
	return min(start, size), min(end, size), nil
}

// Punch makes a hole. It fails with errs.ErrFailedPrecondition on a file system that has none.
func Punch(f *os.File, offset, length int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return fmt.Errorf("make a hole in %s: %w: %w", f.Name(), err, errs.ErrFailedPrecondition)
		case err != nil:
			return fmt.Errorf("make a hole in %s: %w", f.Name(), err)
		}
		return nil
	}
}

// CheckGrain tells whether a hole of unit bytes can be told from data in f. It fails with errs.ErrFailedPrecondition where
// the file system keeps data in larger blocks: what lies beside data would seem to have been written.
func CheckGrain(f *os.File, unit int64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("file system of %s: %w", f.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("status of %s: %w", f.Name(), err)
	}
	return checkGrain(f.Name(), int64(fs.Type), fs.Bsize, st.Blksize, unit)
}

// checkGrain decides by what the kernel says of a file. A tmpfs with huge pages says so only in the file's own block size;
// elsewhere that is no more than a hint for readers.
func checkGrain(name string, kind, fsBlock, fileBlock, unit int64) error {
	block := fsBlock
	if kind == unix.TMPFS_MAGIC {
		block = max(block, fileBlock)
	}
	if block > unit {
		return fmt.Errorf("%s is on a file system of %d-byte blocks, which hide holes of %d bytes: put it on ext4, XFS or btrfs with blocks of at most %d: %w",
			name, block, unit, unit, errs.ErrFailedPrecondition)
	}
	return nil
}

// Used is how many bytes of the disk the file at path takes, holes not counted.
func Used(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("status of %s: %w", path, err)
	}
	return st.Blocks * 512, nil // the unit of st_blocks is 512 bytes on every file system
}
