package jail

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// unusedFor is how long a copy stays that no jail uses.
const unusedFor = 24 * time.Hour

// stage returns the copy of a file that is on another file system than the jails, open. The copy is made once and linked into
// each jail, because a kernel of 57 MB can't be copied at every start. A file that changed has another copy.
func (b Base) stage(src *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return nil, err
	}
	if err := os.Mkdir(b.stageDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	path := filepath.Join(b.stageDir, fmt.Sprintf("%x-%x-%x-%x-%x", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()))
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := prune(b.stageDir, time.Now()); err != nil {
			return nil, err
		}
		if err := copyTo(b.stageDir, path, src); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// copyTo makes a read-only copy that appears under its name whole or not at all. Blocks are shared where the file system can.
func copyTo(dir, path string, src *os.File) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return fmt.Errorf("make a file in %s: %w", dir, err)
	}
	dst := os.NewFile(uintptr(fd), path)
	defer dst.Close()
	if unix.IoctlFileClone(fd, int(src.Fd())) != nil {
		if _, err := io.Copy(dst, src); err != nil {
			return err
		}
	}
	if err := dst.Chmod(0o444); err != nil {
		return err
	}
	err = unix.Linkat(unix.AT_FDCWD, fdPath(fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) { // another start was faster
		return nil
	}
	return err
}

// Tidy removes the copies that no jail has linked and none has used for a day.
func (b Base) Tidy() error {
	err := prune(b.stageDir, time.Now())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// prune removes the copies that no jail has linked and none has used for a while.
func prune(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Nlink > 1 || now.Sub(time.Unix(st.Mtim.Unix())) < unusedFor {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
