// Package inotify waits for a change in the file system without looking again and again.
//
// It is a leaf package.
package inotify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch is a file or folder that is watched.
type Watch struct{ f *os.File }

// What can be waited for.
const (
	Created  = unix.IN_CREATE | unix.IN_MOVED_TO // an entry appeared in the folder
	Modified = unix.IN_MODIFY                    // the file changed
)

// New watches path. Changes from its return on are noticed.
func New(path string, what uint32) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, what); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	return &Watch{os.NewFile(uintptr(fd), "inotify "+path)}, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.f.Close() }

// Until returns nil as soon as ok is true. It asks once at first and then after each change. When the context ends first, it
// returns the context's cause; an error of ok is returned as it is.
func (w *Watch) Until(ctx context.Context, ok func() (bool, error)) error {
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [4096]byte
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		if _, err := w.f.Read(buf[:]); err != nil {
			if cause := context.Cause(ctx); cause != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				return cause
			}
			return err
		}
	}
}
