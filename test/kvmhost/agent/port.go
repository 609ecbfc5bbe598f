package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// hasPeer says whether a virtio-serial port's other end is connected: the kernel reports a hang-up while it is not.
func hasPeer(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	fds := []unix.PollFd{{Events: unix.POLLIN | unix.POLLOUT}}
	var pollErr error
	err = raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, pollErr = unix.Poll(fds, 0)
	})
	if err := errors.Join(err, pollErr); err != nil {
		return false, fmt.Errorf("poll %s: %w", f.Name(), err)
	}
	return fds[0].Revents&unix.POLLHUP == 0, nil
}
