package pager

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// listener is a unix socket that listens.
type listener struct {
	fd   int      // -1 once closed
	dir  *os.Root // the folder, held open to remove the socket when privilege is gone; nil for one that was given
	name string
}

// listen makes the socket with mode 0600, or takes the one that was given. ErrAlreadyExists when something is at its path.
func listen(s Socket) (*listener, error) {
	if s.File != nil {
		// A descriptor of its own: the caller's file is closed by the caller.
		fd, err := unix.FcntlInt(s.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		return &listener{fd: fd}, err
	}
	dir, err := os.OpenRoot(filepath.Dir(s.Path))
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", s.Path, err)
	}
	l := &listener{fd: -1, dir: dir, name: filepath.Base(s.Path)}
	if err := l.bind(s); err != nil {
		l.close()
		return nil, fmt.Errorf("socket %s: %w", s.Path, err)
	}
	return l, nil
}

func (l *listener) bind(s Socket) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	l.fd = fd
	// The mode comes from the mask, so that there is no moment at which others may connect.
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.Path})
	unix.Umask(old)
	if errors.Is(err, unix.EADDRINUSE) {
		l.name = "" // it is not ours to remove
		return fmt.Errorf("%w: %w", err, errs.ErrAlreadyExists)
	}
	if err != nil {
		l.name = ""
		return err
	}
	if err := l.dir.Lchown(l.name, s.UID, s.GID); err != nil {
		return err
	}
	return unix.Listen(fd, 4)
}

// close stops listening and removes the socket, as far as that is still allowed: the folder may be another's by now, and whoever made
// it removes it with all that is in it. It may be called more than once.
func (l *listener) close() {
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
		l.fd = -1
	}
	if l.dir != nil {
		if l.name != "" {
			_ = l.dir.Remove(l.name)
		}
		_ = l.dir.Close()
		l.dir = nil
	}
}
