package dm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl makes one call on the control node. The kernel reads and writes buf, and no more of it than its header's data_size
// says, which encode sets to len(buf). A call that a signal interrupted is made again.
func ioctl(fd uintptr, cmd uint, buf []byte) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(cmd), uintptr(unsafe.Pointer(&buf[0])))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
