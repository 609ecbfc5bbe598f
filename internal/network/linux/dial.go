package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/network"
)

// Dial implements network.Driver.
func (d *Driver) Dial(ctx context.Context, sandbox string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, errs.Field("port", fmt.Sprintf("%d is out of range", port), "give 1 to 65535")
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	slot, err := d.find(sandbox)
	if err != nil {
		return nil, err
	}
	f, err := socketIn(netnsPath(slot), net.JoinHostPort(network.GuestIP.String(), strconv.Itoa(port)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) {
		return nil, fmt.Errorf("network of %s: %w", sandbox, errs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := connect(ctx, f, &unix.SockaddrInet4{Port: port, Addr: network.GuestIP.As4()}); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", f.Name(), err)
	}
	return net.FileConn(f)
}

// socketIn makes a TCP socket in the namespace of that path. A socket stays in the namespace that it was made in, whatever
// its thread does later.
func socketIn(path, name string) (f *os.File, err error) {
	err = inside(path, func(*os.File) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make a socket: %w", err)
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil && f != nil {
		f.Close()
		return nil, err
	}
	return f, err
}

// connect connects the socket, or fails when ctx ends first: with ErrUnavailable when the other side does not answer or
// does not want to.
func connect(ctx context.Context, f *os.File, to unix.Sockaddr) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	begun := false
	var failed error
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	// The runtime calls this at first, and then each time when the socket may have come to a result.
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), to)
			return !errors.Is(failed, unix.EINPROGRESS)
		}
		failed = outcome(int(fd))
		return !errors.Is(failed, unix.EINPROGRESS)
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no answer: %w", errs.ErrUnavailable, context.Cause(ctx))
	case err != nil:
		return err
	case failed != nil:
		return fmt.Errorf("%w: %w", errs.ErrUnavailable, failed)
	}
	return nil
}

// outcome is how a connection under way ended, EINPROGRESS when it has not.
func outcome(fd int) error {
	number, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if number != 0 {
		return unix.Errno(number)
	}
	// A socket without an error is connected, or was woken too early.
	if _, err := unix.Getpeername(fd); err != nil {
		return unix.EINPROGRESS
	}
	return nil
}
