package filesystem

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// found tells of what a new folder has in it.
func (t *tree) found(path string, st *unix.Stat_t) error {
	if temp, _ := isTemp(filepath.Base(path)); temp {
		return nil
	}
	if len(t.known) >= maxKnown {
		return errLost
	}
	t.known[path] = struct{}{}
	if err := t.tell(path, Created); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
		return t.tell(path, Written)
	}
	return nil
}

// add watches a folder below the root, and then looks at what it has in it by then: in this order nothing is missed.
func (t *tree) add(path string, each func(string, *unix.Stat_t) error) error {
	full := filepath.Join(t.root, path)
	wd, err := unix.InotifyAddWatch(t.fd, full, wanted|unix.IN_DONT_FOLLOW)
	if err != nil {
		return t.refused(err, full)
	}
	if _, have := t.dirs[int32(wd)]; !have && !t.w.m.folder(1) {
		return t.tooMany()
	}
	t.dirs[int32(wd)] = path
	return t.look(path, each)
}

// look calls each for what is in a folder, and adds the folders among it.
func (t *tree) look(path string, each func(string, *unix.Stat_t) error) error {
	full := filepath.Join(t.root, path)
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK
	if path != "" {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(full, flags, 0)
	if err != nil {
		return t.refused(err, full)
	}
	folders, err := t.each(os.NewFile(uintptr(fd), full), fd, path, each)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := t.add(folder, each); err != nil {
			return err
		}
	}
	return nil
}

// each goes through an open folder, closes it, and returns the folders in it.
func (t *tree) each(dir *os.File, fd int, path string, each func(string, *unix.Stat_t) error) (folders []string, err error) {
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(namesAtOnce)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // gone again
			}
			one := filepath.Join(path, name)
			if err := each(one, &st); err != nil {
				return nil, err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				folders = append(folders, one)
			}
		}
		if err != nil {
			return folders, nil // the end, or a folder that is being removed
		}
		if len(folders) > t.w.m.limits.Folders {
			return nil, t.tooMany()
		}
	}
}

// refused decides what a folder that can't be watched means: one that is gone again or that the user may not read is left out.
func (t *tree) refused(err error, path string) error {
	switch err {
	case unix.ENOSPC, unix.ENOMEM:
		return t.tooMany()
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.ENAMETOOLONG:
		if path != t.root {
			return nil
		}
	}
	return failed("watch", path, err)
}

func (t *tree) tooMany() error {
	return fault.New(errs.ErrResourceExhausted, "'%s' has too many folders to watch: over %d, counted over all that is watched",
		t.root, t.w.m.limits.Folders)
}
