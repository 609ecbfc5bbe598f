package ramdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// waitFor returns when the device is there. Drivers make it while they load, so it is there at once as a rule; else the
// kernel's events say when to look again.
func waitFor(device string, patience time.Duration) error {
	if there(device) {
		return nil
	}
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	buf := make([]byte, 8<<10)
	for end := time.Now().Add(patience); !there(device); {
		rest := time.Until(end)
		if rest <= 0 {
			return fmt.Errorf("device %s did not appear in %v: %w", device, patience, errs.ErrNotFound)
		}
		left := unix.NsecToTimeval(int64(max(rest, time.Millisecond))) // zero would be for ever
		if err := unix.SetsockoptTimeval(events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
			return fmt.Errorf("device events: %w", err)
		}
		_, _, err := unix.Recvfrom(events, buf, 0)
		if err != nil && !slices.ContainsFunc(passing, func(e error) bool { return errors.Is(err, e) }) {
			return fmt.Errorf("device events: %w", err)
		}
	}
	return nil
}

// passing are the errors of a wait after which one looks again: time is up, a signal came, events were lost.
var passing = []error{unix.EAGAIN, unix.EINTR, unix.ENOBUFS}

func there(device string) bool {
	_, err := os.Stat(device)
	return !errors.Is(err, fs.ErrNotExist)
}
