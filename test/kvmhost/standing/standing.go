// Package standing keeps hosts up between commands: each in a process of its own, which serves streams to it on a unix socket
// in a folder named as the host is. The process holds a lock on the folder for as long as it lives, so that what a killed one
// left is known as such.
package standing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// The files in a host's folder.
const (
	lockFile   = "lock" // held by the process; its content is the pid and the host's notes
	socketFile = "socket"
	lostFile   = "lost" // why the host ended, if not by Down
)

// What a connection to the socket is for: its first byte.
const (
	wantStream byte = 'c'
	wantEnd    byte = 'q'
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// folder returns the folder of a host's files.
func folder(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", errs.Field("NAME", fmt.Sprintf("%q is no name for a host", name), "give at most 31 of a-z, 0-9 and -")
	}
	parent, err := parentFolder()
	return filepath.Join(parent, name), err
}

func parentFolder() (string, error) {
	cache, err := buildcache.Dir()
	return filepath.Join(cache, "kvmhost-up"), err
}

// lock takes the lock of a host's folder. The file must be kept open; ok is false when another process has it.
func lock(dir string) (f *os.File, ok bool, err error) {
	f, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, err
	}
	return f, true, nil
}

// Host is what is kept up.
type Host interface {
	// Stream opens a stream that commands can be run on.
	Stream() (io.ReadWriteCloser, error)
	// Done is closed when the host has ended by itself.
	Done() <-chan struct{}
	// Err says why.
	Err() error
	Close() error
}

// dial connects to the process that keeps a host up. The error is an errs.ErrNotFound when there is none.
func dial(name string, want byte) (net.Conn, error) {
	dir, err := folder(name)
	if err != nil {
		return nil, err
	}
	conn, err := inFolder(dir, func(path string) (net.Conn, error) { return net.Dial("unix", filepath.Join(path, socketFile)) })
	if err != nil {
		return nil, notUp(name, dir)
	}
	if _, err := conn.Write([]byte{want}); err != nil {
		_ = conn.Close()
		return nil, notUp(name, dir)
	}
	return conn, nil
}

// notUp is the error for a host that is not up. It tells how the host ended, if it did not end by Down.
func notUp(name, dir string) error {
	if report, err := os.ReadFile(filepath.Join(dir, lostFile)); err == nil {
		return fmt.Errorf("host %q ended by itself; 'kvmhost up %s' boots it again: %w\n%s", name, name, errs.ErrNotFound, report)
	}
	return fmt.Errorf("no host %q is up; 'kvmhost up %s' boots it: %w", name, name, errs.ErrNotFound)
}

// Connect returns a client of a host that is up. The error is an errs.ErrNotFound when it is not.
func Connect(ctx context.Context, name string) (*remote.Client, error) {
	conn, err := dial(name, wantStream)
	if err != nil {
		return nil, err
	}
	return remote.NewClient(ctx, conn)
}

// Lost says how a host ended, if it did not end by Down.
func Lost(name string) error {
	dir, err := folder(name)
	if err != nil {
		return err
	}
	return notUp(name, dir)
}

// Down ends a host and returns when nothing of it is left, or when ctx ends. The error is an errs.ErrNotFound when it is not
// up; what a killed process left of it is removed all the same.
func Down(ctx context.Context, name string) error {
	dir, err := folder(name)
	if err != nil {
		return err
	}
	conn, err := dial(name, wantEnd)
	if err != nil {
		return errors.Join(err, removeStale(dir))
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = conn.Read(make([]byte, 1)) // ends with the process
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if f, ok, err := lock(dir); ok || err != nil {
			_ = f.Close()
			return removeStale(dir)
		}
	}
	return ctx.Err()
}

// removeStale removes a host's folder if no process keeps it.
func removeStale(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	f, ok, err := lock(dir)
	if err != nil || !ok {
		return err
	}
	defer f.Close()
	return os.RemoveAll(dir)
}

// Info is a host that is up.
type Info struct {
	Name  string
	Pid   int
	Notes string // as given to Serve
}

// List returns the hosts that are up, by name.
func List() ([]Info, error) {
	parent, err := parentFolder()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []Info
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		f, free, err := lock(dir)
		if err != nil {
			return nil, err
		}
		if free {
			_ = f.Close()
			continue
		}
		info, err := readInfo(dir)
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	return list, nil
}

func readInfo(dir string) (Info, error) {
	data, err := os.ReadFile(filepath.Join(dir, lockFile))
	if err != nil {
		return Info{}, err
	}
	pid, notes, _ := strings.Cut(string(data), "\n")
	n, _ := strconv.Atoi(pid)
	return Info{Name: filepath.Base(dir), Pid: n, Notes: notes}, nil
}
