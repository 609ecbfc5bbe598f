// Package jail builds and removes the chroots that the jailer confines Firecracker to.
//
// A jail is the folder <base>/<name of the binary>/<id>; the process's root is "root" inside it and belongs to the process's
// own uid. So whatever is in root may have been put there by a guest that took its VMM over. Every operation here on
// something inside root goes by way of an open folder, follows no symbolic link and crosses into no mount.
//
// The base itself is for root alone: the jailer before 1.13.2 and 1.14.1 follows symbolic links there (CVE-2026-1386).
package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	rootName   = "root"
	killedName = "killed"
	// removedName is what root is called while the jail is removed.
	removedName = "removed"
	// beneath is how paths inside a jail are resolved.
	beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
)

// Base is the folder that all jails are in.
type Base struct{ dir, stageDir string }

// New returns the base at dir. Copies of files from other file systems are kept in stageDir, which is a cache: what no jail
// uses may be deleted at any time. Both must be on one file system. New makes nothing.
func New(dir, stageDir string) Base { return Base{dir, stageDir} }

// Dir is the base's path.
func (b Base) Dir() string { return b.dir }

// prepare makes the base with the folder of the binary's name, or refuses one that somebody else can write to.
func (b Base) prepare(exec string) error {
	if err := os.MkdirAll(filepath.Join(b.dir, exec), 0o700); err != nil {
		return err
	}
	for _, dir := range []string{b.dir, filepath.Join(b.dir, exec)} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
			return fmt.Errorf("%s must be a folder that only its owner, uid %d, can write to: %w", dir, os.Geteuid(),
				errs.ErrFailedPrecondition)
		}
	}
	return nil
}

// Jail is one machine's chroot.
type Jail struct {
	dir      string // the folder that holds root
	base     Base
	root     *os.File // opened with O_PATH
	uid, gid int
}

// Create makes the jail of an id for a binary of the name exec, which will run with uid and gid. ErrAlreadyExists when the id
// has one. When it fails, no jail of the id is left by it.
func (b Base) Create(exec, id string, uid, gid int) (_ *Jail, err error) {
	if err := b.prepare(exec); err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, exec, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("jail %s: %w", id, errs.ErrAlreadyExists)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir)) // nothing but what this function made is in it
		}
	}()
	// The socket's folder is made here, before the jailer would make it, so that it can be watched from the start.
	for _, name := range []string{rootName, rootName + "/run", rootName + "/drives"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return nil, err
		}
	}
	return b.open(dir, uid, gid)
}

// Open returns the jail of an id. ErrNotFound when there is none.
func (b Base) Open(id string) (*Jail, error) {
	dirs, err := b.find(id)
	if err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return nil, fmt.Errorf("jail %s: %w", id, errs.ErrNotFound)
	}
	return b.open(dirs[0], -1, -1)
}

func (b Base) open(dir string, uid, gid int) (*Jail, error) {
	fd, err := unix.Open(filepath.Join(dir, rootName), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("root of jail %s: %w", filepath.Base(dir), errs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open the root of jail %s: %w", filepath.Base(dir), err)
	}
	return &Jail{dir: dir, base: b, root: os.NewFile(uintptr(fd), "jail "+filepath.Base(dir)), uid: uid, gid: gid}, nil
}

// find returns the folders of an id. There can be more than one when the binary's name changed.
func (b Base) find(id string) ([]string, error) {
	execs, err := b.execs()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, exec := range execs {
		dir := filepath.Join(b.dir, exec, id)
		if _, err := os.Lstat(dir); err == nil {
			dirs = append(dirs, dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return dirs, nil
}

// execs lists the folders that jails are in, one for each name of the binary that was ever used.
func (b Base) execs() ([]string, error) {
	entries, err := os.ReadDir(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// List returns the ids that have a jail, whole or half made, sorted.
func (b Base) List() ([]string, error) {
	execs, err := b.execs()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, exec := range execs {
		entries, err := os.ReadDir(filepath.Join(b.dir, exec))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Close gives up the open root. The jail stays. A second Close does nothing.
func (j *Jail) Close() error {
	if err := j.root.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Path is a host path of something in the jail, for what can't go by way of an open folder. It is only for use before the
// process runs.
func (j *Jail) Path(name string) string { return filepath.Join(j.dir, rootName, name) }

// MarkKilled records that the machine's end is wanted. It is written before the process is killed, so whoever watches the
// process knows the reason when it sees the end. The record is outside of root, where the process can't reach it.
func (b Base) MarkKilled(id string) error {
	dirs, err := b.find(id)
	for _, dir := range dirs {
		f, e := os.OpenFile(filepath.Join(dir, killedName), os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
		if e == nil {
			e = f.Close()
		}
		if e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Killed says whether MarkKilled was called for the jail, or its removal began, which happens to an ended machine only.
func (j *Jail) Killed() bool {
	if _, err := os.Lstat(filepath.Join(j.dir, killedName)); err == nil {
		return true
	}
	_, err := os.Lstat(filepath.Join(j.dir, rootName)) // its removal begins with this name
	return errors.Is(err, fs.ErrNotExist)
}
