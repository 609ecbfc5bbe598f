package guestinit

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resizeRequest is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
const resizeRequest = 0x40086610

// resize makes a mounted ext4 file system this many blocks big. It does nothing when it is so big already.
func resize(root *os.File, blocks uint64) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), resizeRequest, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return os.NewSyscallError("EXT4_IOC_RESIZE_FS", errno)
	}
	return nil
}
