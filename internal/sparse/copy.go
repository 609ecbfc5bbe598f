package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// blockBytes is the unit in which zeros are left out: no file system of ours has smaller blocks.
const blockBytes = 4096

// pieceBytes bounds the memory of a copy, and how much is copied after its context has ended.
const pieceBytes = 1 << 20

var zeroBlock [blockBytes]byte

// Share makes the empty file dst have src's content by sharing its blocks (reflink), which costs neither time nor room, and
// reports whether it could: not when the two are on different file systems, or on one that shares no blocks. Each may be
// written afterwards without a change to the other.
func Share(dst, src *os.File) (bool, error) {
	err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return false, nil
	}
	return false, fmt.Errorf("share the blocks of %s: %w", src.Name(), err)
}

// Copy makes the empty file dst have src's content. Holes of src are not read, and whole blocks of zeros become holes of dst.
func Copy(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	buf := make([]byte, min(pieceBytes, info.Size()))
	return Walk(ctx, src, 1, func(start, end int64) error {
		for at := start; at < end; at += int64(len(buf)) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			piece := buf[:min(int64(len(buf)), end-at)]
			if err := readFull(src, piece, at); err != nil {
				return err
			}
			if err := split(piece, at, dst.WriteAt, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// Replace writes b, which are whole blocks, at the offset at of dst, whatever is there. Blocks of zeros become holes.
func Replace(dst *os.File, b []byte, at int64) error {
	return split(b, at, dst.WriteAt, func(n int, at int64) error { return punch(dst, at, int64(n)) })
}

// split gives the parts of b that are not zero to data and the others to zero, each as long as possible, with their offset in
// a file in which b is at the offset at.
func split(b []byte, at int64, data func([]byte, int64) (int, error), zero func(int, int64) error) error {
	for len(b) > 0 {
		isZero := zeroAt(b, 0)
		n := blockBytes
		for n < len(b) && zeroAt(b, n) == isZero {
			n += blockBytes
		}
		n = min(n, len(b))
		var err error
		if !isZero {
			_, err = data(b[:n], at)
		} else if zero != nil {
			err = zero(n, at)
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// zeroAt says whether the block of b at offset i is zero; the last one may be shorter.
func zeroAt(b []byte, i int) bool {
	block := b[i:min(i+blockBytes, len(b))]
	return bytes.Equal(block, zeroBlock[:len(block)])
}

// punch makes a part of a file zero, by a hole where the file system can.
func punch(f *os.File, at, n int64) error {
	err := Punch(f, at, n)
	if errors.Is(err, errs.ErrFailedPrecondition) {
		_, err = f.WriteAt(make([]byte, n), at)
	}
	return err
}

// readFull fills b from a file that must have so much.
func readFull(f *os.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d of %s: %w", len(b), at, f.Name(), err)
}
