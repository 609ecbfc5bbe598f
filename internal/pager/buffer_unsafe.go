package pager

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newBuffer maps memory outside of the Go heap: the garbage collector does not count it, and what is never written to is never
// there. It is aligned to a page.
func newBuffer(size int) ([]byte, error) {
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffer of %d bytes: %w", size, err)
	}
	return buf, nil
}

// emptyBuffer gives back the memory of a part of a buffer; it is zero when it is used again.
func emptyBuffer(buf []byte) { _ = unix.Madvise(buf, unix.MADV_DONTNEED) }

func freeBuffer(buf []byte) {
	if buf != nil {
		_ = unix.Munmap(buf)
	}
}
