package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNS is the network namespace of the calling thread.
const threadNS = "/proc/thread-self/ns/net"

// onThread runs fn on a thread that nobody else uses meanwhile and that fn may take into another network namespace. The
// thread is brought back after it; one that can't be brought back ends with its goroutine.
func onThread(fn func(home *os.File) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNS)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = fn(home)
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			done <- errors.Join(err, fmt.Errorf("leave the namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// inside runs fn on a thread in the namespace of that path; home is the namespace that the thread came from. The error is fs.ErrNotExist when there is no such file, and
// errNoNamespace when the file is none.
func inside(path string, fn func(home *os.File) error) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return onThread(func(home *os.File) error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			if errors.Is(err, unix.EINVAL) {
				err = errNoNamespace
			}
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return fn(home)
	})
}

var errNoNamespace = errors.New("not a network namespace")

// makeNamespace makes a network namespace that carries the label, and then gives it its path. ErrExist when there is such a
// path; the caller holds the host's lock. When it fails nothing is left.
func makeNamespace(path, label string) error {
	return onThread(func(*os.File) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		h, err := newHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := h.LinkSetAlias(lo, label); err != nil {
			return fmt.Errorf("label the namespace: %w", err)
		}
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return err
		}
		f.Close()
		if err := unix.Mount(threadNS, path, "none", unix.MS_BIND, ""); err != nil {
			return errors.Join(fmt.Errorf("name the namespace %s: %w", path, err), os.Remove(path))
		}
		return nil
	})
}

// relabel changes what a namespace says about its owner.
func relabel(path, label string) error {
	return inside(path, func(*os.File) error {
		h, err := newHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetAlias(lo, label)
	})
}

// namespaceLabel reads what a namespace says about its owner, "" when it says nothing.
func namespaceLabel(path string) (text string, err error) {
	err = inside(path, func(*os.File) error {
		h, err := newHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		text = lo.Attrs().Alias
		return nil
	})
	return text, err
}

// unname takes the path from a namespace, which ends when no process is in it. It is idempotent.
func unname(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// namedSlots is the slots that have a name under /run/netns, ours and those of other state folders.
func namedSlots() ([]int, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if slot, ok := slotNumber(e.Name(), netnsPrefix); ok {
			list = append(list, slot)
		}
	}
	return list, nil
}

// lockHost waits until no other process of the host makes or removes a slot, and returns what ends that. Holders do a few
// kernel calls and nothing that waits for others, and a killed one's lock is gone, so the wait is short.
func lockHost() (unlock func(), err error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", netnsDir, err)
	}
	return func() { dir.Close() }, nil
}

// shareNames makes /run/netns a mount that is shared between mount namespaces, as ip(8) does: a name that is taken away
// here then goes everywhere, and no other mount namespace keeps the network namespace alive. The caller holds the lock.
func shareNames() error {
	err := unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount yet
		if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", netnsDir, err)
		}
		err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", netnsDir, err)
	}
	return nil
}
