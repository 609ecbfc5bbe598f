package uffd

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests of include/uapi/linux/userfaultfd.h. Wake and unregister are declared as reading there, by a mistake that the
// header admits and keeps.
const (
	ioc        = 0xAA
	iocNew     = ioc << 8 // on /dev/userfaultfd; takes open flags
	iocAPI     = 3<<30 | unsafe.Sizeof(apiArg{})<<16 | ioc<<8 | 0x3F
	iocReg     = 3<<30 | unsafe.Sizeof(registerArg{})<<16 | ioc<<8 // number 0
	iocUnreg   = 2<<30 | unsafe.Sizeof(rangeArg{})<<16 | ioc<<8 | 0x01
	iocWake    = 2<<30 | unsafe.Sizeof(rangeArg{})<<16 | ioc<<8 | 0x02
	iocCopy    = 3<<30 | unsafe.Sizeof(copyArg{})<<16 | ioc<<8 | 0x03
	iocZero    = 3<<30 | unsafe.Sizeof(zeroArg{})<<16 | ioc<<8 | 0x04
	apiVersion = 0xAA
	missing    = 1 << 0 // UFFDIO_REGISTER_MODE_MISSING
)

// struct uffdio_api
type apiArg struct{ api, features, ioctls uint64 }

// struct uffdio_range
type rangeArg struct{ start, length uint64 }

// struct uffdio_register
type registerArg struct {
	rangeArg
	mode, ioctls uint64
}

// struct uffdio_copy. The source is a pointer, so that what it points to stays where it is during the call.
type copyArg struct {
	dst          uint64
	src          unsafe.Pointer
	length, mode uint64
	copied       int64
}

// struct uffdio_zeropage
type zeroArg struct {
	rangeArg
	mode   uint64
	zeroed int64
}

// Open makes a userfaultfd for the calling process's own memory, as Firecracker does: it does not block, is closed on exec, and
// takes faults that the kernel itself makes. It is what a process does whose memory somebody else will fill in.
func Open(features uint64) (*FD, error) {
	dev, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), iocNew, unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return nil, fmt.Errorf("new userfaultfd: %w", errno)
	}
	f := &FD{fd: int(fd)}
	api := apiArg{api: apiVersion, features: features}
	if err := f.ioctl(iocAPI, unsafe.Pointer(&api)); err != nil {
		return nil, errors.Join(fmt.Errorf("userfaultfd with features %#x: %w", features, err), f.Close())
	}
	return f, nil
}

// Register has faults of missing pages in the range reported.
func (f *FD) Register(start, length uint64) error {
	arg := registerArg{rangeArg: rangeArg{start, length}, mode: missing}
	return f.ioctl(iocReg, unsafe.Pointer(&arg))
}

// Unregister implements Memory.
func (f *FD) Unregister(start, length uint64) error {
	arg := rangeArg{start, length}
	return f.ioctl(iocUnreg, unsafe.Pointer(&arg))
}

// Wake implements Memory.
func (f *FD) Wake(start, length uint64) error {
	arg := rangeArg{start, length}
	return f.ioctl(iocWake, unsafe.Pointer(&arg))
}

// Copy implements Memory. The kernel reads src itself: what cannot be read there is EFAULT, not a signal.
func (f *FD) Copy(dst uint64, src []byte) (uint64, error) {
	if len(src) == 0 {
		return 0, unix.EINVAL
	}
	arg := copyArg{dst: dst, src: unsafe.Pointer(&src[0]), length: uint64(len(src))}
	err := f.ioctl(iocCopy, unsafe.Pointer(&arg))
	return filled(arg.copied), err
}

// Zero implements Memory.
func (f *FD) Zero(dst, length uint64) (uint64, error) {
	arg := zeroArg{rangeArg: rangeArg{dst, length}}
	err := f.ioctl(iocZero, unsafe.Pointer(&arg))
	return filled(arg.zeroed), err
}

// filled reads the count in an answer, which repeats the error as a negative number.
func filled(n int64) uint64 { return uint64(max(n, 0)) }

// ioctl makes one call. arg points to one of the structs above, of the size that the request says.
func (f *FD) ioctl(request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
