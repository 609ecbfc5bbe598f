package pager

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// everyThread makes a call on all threads of the process.
func everyThread(trap, a, b uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a, b, 0, 0, 0, 0)
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, syscall.ENOTSUP):
		return fmt.Errorf("the binary is built with cgo: %w: %w", errno, errs.ErrFailedPrecondition)
	}
	return errno
}

func prctl(option int, value uintptr) error {
	return everyThread(unix.SYS_PRCTL, uintptr(option), value)
}

// dropCapabilities empties all three sets, which empties the ambient one too. The bounding set stays: with no new privileges there
// is no way to gain from it.
func dropCapabilities() error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := new([2]unix.CapUserData)
	err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	return err
}
