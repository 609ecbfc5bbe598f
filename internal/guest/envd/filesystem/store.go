package filesystem

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// tempPrefix begins the name that a file has for a moment before its own. What follows tells a watcher what to make of its last name.
	tempPrefix = ".wrenn-upload-"
	tempNew    = tempPrefix + "new-"
	tempOver   = tempPrefix + "over-"

	fileMode644 = 0o644
	allModes    = 0o777
)

// Options say how a file is stored.
type Options struct {
	// Mode is the nine permission bits; nil leaves those of the file that is replaced, or 0644.
	Mode *uint32
	// Metadata replaces what the file has, by keys without MetadataPrefix.
	Metadata map[string]string
}

// Store writes a file at an absolute path, whole or not at all: until its content is complete it has no name, and is gone if envd is; then
// it takes its name at once. (A file without a name can't take that of another in one step. So it gets a hidden one first, and is moved:
// only an envd that is killed between these two calls leaves it. Where a file system knows no files without names, it is hidden from the
// start.) Missing folders are made. Of a file that is replaced, the mode stays if it is not given, and nothing else;
// a symbolic link at the path's end is followed, if it leads to a file.
//
// It belongs to the user on whose thread (package actas) this runs, and who must be allowed to write the folder. Nothing is forced to
// the disk: what the guest's kernel holds is part of a frozen sandbox, and in a guest that dies it is lost as other programs' writes are.
//
// An error of r is returned as it is. ErrInvalid for a path that has something else than a file; ErrNoSpace.
func Store(path string, r io.Reader, o Options) error {
	if err := makeFolders(filepath.Dir(path)); err != nil {
		return err
	}
	t, err := findTarget(path)
	if err != nil {
		return err
	}
	defer t.close()
	temp, err := t.create()
	if err != nil {
		return failed("write", path, err)
	}
	defer temp.Close()
	if err := t.fill(temp, r, o); err != nil {
		if t.hidden {
			_ = unix.Unlinkat(t.dir, t.temp, 0) // what failed before counts
		}
		return err
	}
	return nil
}

// target is where a file is to be.
type target struct {
	path string
	dir  int    // the folder, open
	name string // in it
	mode uint32
	over bool // there is a file

	temp   string // the hidden name
	hidden bool   // it has it
}

func (t *target) close() { _ = unix.Close(t.dir) }

// findTarget looks at what is at a path now. If that changes before the end, the file still lands in the folder that was found.
func findTarget(path string) (*target, error) {
	t, link, err := lookAt(path)
	if err != nil || !link {
		return t, err
	}
	t.close()
	// The kernel follows the link, with all its rules about who may follow whose, and tells where it came out.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, invalid("path '%s' is a symbolic link that leads nowhere", path)
	}
	if err != nil {
		return nil, failed("write", path, err)
	}
	defer unix.Close(fd)
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, failed("write", path, err)
	}
	if t, link, err = lookAt(real); err != nil {
		return nil, err
	}
	if link || !t.over {
		t.close()
		return nil, failed("write", path, unix.EBUSY) // it changed in between
	}
	return t, nil
}

// lookAt opens the folder of a path and says whether a link has the name.
func lookAt(path string) (t *target, link bool, err error) {
	t = &target{path: path, name: filepath.Base(path), mode: fileMode644}
	if path == "/" {
		return nil, false, invalid("path '/' is a directory")
	}
	t.dir, err = unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, failed("write", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstatat(t.dir, t.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return t, false, nil
	case err != nil:
		err = failed("write", path, err)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return t, true, nil
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		t.over, t.mode = true, st.Mode&allModes
		return t, false, nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		err = invalid("path '%s' is a directory", path)
	default:
		err = invalid("path '%s' is no regular file", path)
	}
	t.close()
	return nil, false, err
}

// create makes the file without a name, or under its hidden one.
func (t *target) create() (*os.File, error) {
	t.temp = tempNew + rand.Text()
	if t.over {
		t.temp = tempOver + rand.Text()
		// A folder that the user may write to lets him replace a file that he may not: this asks what opening it to write would.
		if err := unix.Faccessat2(t.dir, t.name, unix.W_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW); err != nil && err != unix.ENOENT {
			return nil, err
		}
	}
	fd, err := openUnnamed(t.dir)
	if err == unix.EOPNOTSUPP || err == unix.EISDIR { // an old kernel's word for the same
		t.hidden = true
		fd, err = unix.Openat(t.dir, t.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), t.path), nil
}

// openUnnamed makes a file in a folder that has no name. EOPNOTSUPP where there are none. A test has others' file systems by it.
var openUnnamed = func(dir int) (fd int, err error) {
	return unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
}

// fill writes the file and gives it its name.
func (t *target) fill(temp *os.File, r io.Reader, o Options) error {
	if err := copyTo(temp, r, t.path); err != nil {
		return err
	}
	for key, value := range o.Metadata {
		if err := unix.Fsetxattr(int(temp.Fd()), MetadataPrefix+key, []byte(value), 0); err != nil {
			return metadataFailed(t.path, err)
		}
	}
	mode := t.mode
	if o.Mode != nil {
		mode = *o.Mode & allModes
	}
	if err := unix.Fchmod(int(temp.Fd()), mode); err != nil {
		return failed("set the mode of", t.path, err)
	}
	if err := t.publish(temp); err != nil {
		return failed("write", t.path, err)
	}
	return nil
}

// publish gives the file its name, in the place of another that may have it.
func (t *target) publish(temp *os.File) error {
	if !t.hidden {
		// The thread may follow this link to its own file, and link a file that is its user's.
		own := fmt.Sprintf("/proc/self/fd/%d", temp.Fd())
		if err := unix.Linkat(unix.AT_FDCWD, own, t.dir, t.temp, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		t.hidden = true
	}
	return unix.Renameat(t.dir, t.temp, t.dir, t.name)
}

// metadataFailed tells what the kernel means: its "no space" is about what fits into one file's attributes.
func metadataFailed(path string, err error) error {
	switch err {
	case unix.ENOSPC, unix.E2BIG, unix.ERANGE:
		return invalid("the metadata of '%s' is too large for its file system", path)
	}
	return failed("set metadata of", path, err)
}

// copyBytes is how much is copied at once.
const copyBytes = 64 << 10

// copyTo copies all of r. An error of r is returned as it is, one of the file with its kind.
func copyTo(w *os.File, r io.Reader, path string) error {
	buf := make([]byte, copyBytes)
	for {
		n, rerr := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return failed("write", path, err)
		}
		switch {
		case rerr == io.EOF:
			return nil
		case rerr != nil:
			return rerr
		}
	}
}

// isUnnamed says whether a name is what the kernel calls a file that has none, such as "#123".
func isUnnamed(name string) bool {
	digits, ok := strings.CutPrefix(name, "#")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// isTemp says whether a name is that of a file that is being stored, and whether it will replace another.
func isTemp(name string) (temp, over bool) {
	return strings.HasPrefix(name, tempPrefix), strings.HasPrefix(name, tempOver)
}

// Open opens a regular file to be read, on the thread of a user. ErrInvalid for what is none.
func Open(path string) (*os.File, os.FileInfo, error) {
	// Without waiting: a pipe that nobody writes to would never be open.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, failed("read", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	switch {
	case err != nil:
		err = failed("read", path, err)
	case st.IsDir():
		err = invalid("path '%s' is a directory", path)
	case !st.Mode().IsRegular():
		err = invalid("path '%s' is no regular file", path)
	default:
		return f, st, nil
	}
	_ = f.Close()
	return nil, nil, err
}
