// Package uffd speaks to the kernel's userfaultfd: the ioctls and messages by which one process fills in the memory of another.
//
// A process registers ranges of its memory with a descriptor and hands that descriptor over. From then on a touch of a page
// that is missing puts the thread to sleep and a message into the descriptor, until Copy or Zero makes the page. With
// FeatureRemove, madvise(MADV_DONTNEED) of a registered range sends a message too and waits until it is read; while such a message is
// unread, every Copy and Zero fails with EAGAIN, so that nothing old is put back over what is being taken away. That is also true
// for a moment after it was read, until the thread that waited has run.
//
// It knows nothing of machines or files, and imports nothing of ours.
package uffd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FeatureRemove asks for messages about memory that is taken away.
const FeatureRemove = 1 << 3

// Kind is what a message is about. The numbers are the kernel's.
type Kind uint8

// The kinds of message.
const (
	Fault  Kind = 0x12 // a thread sleeps until the page at Start is there
	Fork   Kind = 0x13 // the process forked; FD is a new descriptor, which is open in the reader from now on
	Remap  Kind = 0x14
	Remove Kind = 0x15 // the memory from Start up to End is being taken away; it will read as zero
	Unmap  Kind = 0x16
)

// Msg is one message.
type Msg struct {
	Kind       Kind
	Start, End uint64
	FD         int
}

// Memory is the memory of a process as seen through a descriptor. Lengths and addresses are multiples of the page size of the range
// that they fall in.
//
// Copy and Zero return how many bytes they filled in from the start, also when they fail:
//   - EEXIST: the first page is there already. Nobody was woken.
//   - EAGAIN: with n > 0, the page behind those n bytes could not be made, for a reason that a call for it alone tells; with
//     n == 0, memory is being taken away: read the messages, then try again.
//   - ESRCH: the process is gone.
//   - ENOENT: the range is not registered.
//   - EFAULT: src could not be read (Copy).
type Memory interface {
	// FD is the descriptor, to poll. It is readable when there is a message.
	FD() int
	// Read fills in messages and returns how many, without waiting: EAGAIN when there is none. Fewer than there was room for means
	// that there were no more. Within one answer, faults come before removals that happened earlier.
	Read(msgs []Msg) (int, error)
	// Copy makes pages at dst with the content of src, and wakes who waits for them.
	Copy(dst uint64, src []byte) (n uint64, err error)
	// Zero makes pages of zeros, and wakes who waits for them. It is for pages of 4096 bytes; others fail with EINVAL.
	Zero(dst, length uint64) (n uint64, err error)
	// Wake wakes who waits for pages in the range; they look again.
	Wake(start, length uint64) error
	// Unregister lets go of the range: who waits is woken, and pages that are missing are the kernel's own, zero.
	Unregister(start, length uint64) error
	// Close closes the descriptor. What is registered stays so while another copy of it is open.
	Close() error
}

const msgBytes = 32

// maxMsgs is the most messages that one Read takes.
const maxMsgs = 64

// FD is a userfaultfd. It implements Memory, and is not safe for use by several goroutines.
type FD struct {
	fd  int
	buf [maxMsgs * msgBytes]byte
}

// ErrNotUserfaultfd says that a descriptor is something else.
var ErrNotUserfaultfd = errors.New("not a userfaultfd")

// FromFD takes over a descriptor that another process sent. When it is not a userfaultfd, it fails with ErrNotUserfaultfd and
// leaves fd open.
func FromFD(fd int) (*FD, error) {
	what, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	if what != "anon_inode:[userfaultfd]" {
		return nil, ErrNotUserfaultfd
	}
	// A descriptor that blocks cannot be polled: poll would say POLLERR for ever.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return &FD{fd: fd}, nil
}

// FD returns the descriptor.
func (f *FD) FD() int { return f.fd }

// Close closes the descriptor.
func (f *FD) Close() error { return unix.Close(f.fd) }

// Read implements Memory.
func (f *FD) Read(msgs []Msg) (int, error) {
	room := min(len(msgs), maxMsgs) * msgBytes
	for {
		n, err := unix.Read(f.fd, f.buf[:room])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for i := range n / msgBytes {
			msgs[i] = decode(f.buf[i*msgBytes : (i+1)*msgBytes])
		}
		return n / msgBytes, nil
	}
}

// decode reads a struct uffd_msg: the kind in the first byte, and from the eighth on what belongs to it.
func decode(b []byte) Msg {
	m := Msg{Kind: Kind(b[0]), FD: -1}
	one, two := binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
	switch m.Kind {
	case Fault: // flags, then the address
		m.Start = two
	case Fork:
		m.FD = int(binary.NativeEndian.Uint32(b[8:]))
	default:
		m.Start, m.End = one, two
	}
	return m
}
