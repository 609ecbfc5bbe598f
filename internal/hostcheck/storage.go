package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Free space in the state folder: below the first no sandbox starts, below the second a few fill it.
const (
	leastFree  = 1 << 30
	enoughFree = 10 << 30
)

// stateFS is the state folder, or the nearest folder above that is there: the file system that it will be on.
func (h host) stateFS() (string, error) {
	path, err := filepath.Abs(h.StateDir)
	if err != nil {
		return "", err
	}
	for {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path, nil
		}
		if path == "/" {
			return "", fmt.Errorf("%s: %w", h.StateDir, os.ErrNotExist)
		}
		path = filepath.Dir(path)
	}
}

func (h host) space(context.Context) []Item {
	const name = "disk space"
	path, err := h.stateFS()
	if err != nil {
		return failed(name, err, "give another --state-dir")
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return failed(name, err, "give another --state-dir")
	}
	free := int64(st.Bavail) * st.Bsize
	detail := fmt.Sprintf("%.1f GiB free on the file system of %s", float64(free)/(1<<30), h.StateDir)
	switch {
	case free < leastFree:
		return fail(name, detail, "free some, or give a --state-dir on a larger one")
	case free < enoughFree:
		return warn(name, detail, "10 GiB or more is better: every sandbox's changes are kept there")
	}
	return ok(name, "%s", detail)
}

// reflink shares the blocks of two files without a name.
func (h host) reflink(context.Context) []Item {
	const name = "reflink"
	path, err := h.stateFS()
	if err != nil {
		return failed(name, err, "give another --state-dir")
	}
	if err := shareBlocks(path); err != nil {
		return warn(name, fmt.Sprintf("%s: %v", path, err), "put the state folder on XFS or btrfs: without, a fork copies a disk's changes instead of sharing them")
	}
	return ok(name, "files on the file system of %s can share blocks", h.StateDir)
}

func shareBlocks(dir string) error {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("make a file without a name: %w", err)
		}
		files[i] = os.NewFile(uintptr(fd), dir)
		defer files[i].Close()
	}
	const block = 64 << 10
	if _, err := files[0].Write(make([]byte, block)); err != nil {
		return err
	}
	if err := unix.IoctlFileClone(int(files[1].Fd()), int(files[0].Fd())); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
			return errors.New("this file system can't share blocks between files")
		}
		return err
	}
	return nil
}

func (h host) swap(context.Context) []Item {
	const name = "swap"
	list, err := read(h.proc, "swaps")
	if err != nil {
		return warn(name, err.Error(), "look at /proc/swaps: guests' memory should not be written to a disk")
	}
	if areas := strings.Split(list, "\n")[1:]; len(areas) > 0 {
		return warn(name, fmt.Sprintf("%d areas are on", len(areas)), "swapoff -a: guests' secrets may be written to a disk, and a guest that is swapped out is slow")
	}
	return ok(name, "off")
}
