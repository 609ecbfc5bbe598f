package pager

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbid puts the filter in force, and takes from every thread the possibility to gain privileges by executing a program. Both are
// properties of a thread; the kernel's flag to synchronise threads carries them to all, also in a binary with cgo, in which Go's own
// way of making a call on every thread does not work.
func forbid() error {
	code, err := filter()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	switch {
	case errno != 0:
		return errno
	case thread != 0: // the number of one that has a filter of its own
		return unix.EBUSY
	}
	return nil
}
