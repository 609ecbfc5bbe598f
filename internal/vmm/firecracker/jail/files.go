package jail

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// Provide makes what is at the host's path appear in the jail as name: a block device as a node of the process's own, a
// read-only file as a hard link that the process can't write to, a writable file as a hard link that belongs to the process, a
// socket as a hard link of it, which leads to whoever listens. It is only for use before the process runs.
//
// Errors: ErrNotFound when the path is not there; ErrInvalid when it is something else, or a writable file on another file
// system than the jail.
func (j *Jail) Provide(path, name string, readOnly bool) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("%s: %w", path, errs.ErrNotFound)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFBLK:
		return j.device(st.Rdev, name, readOnly)
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		return j.socket(path, name)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is neither a file, a block device nor a socket: %w", path, errs.ErrInvalid)
	case readOnly:
		return j.share(path, name)
	default:
		return j.give(path, name)
	}
}

// device makes a node of a block device.
func (j *Jail) device(rdev uint64, name string, readOnly bool) error {
	mode := uint32(unix.S_IFBLK | 0o600)
	if readOnly {
		mode = unix.S_IFBLK | 0o400
	}
	fd := int(j.root.Fd())
	if err := unix.Mknodat(fd, name, mode, int(rdev)); err != nil {
		return fmt.Errorf("make the node %s: %w", name, err)
	}
	return j.own(name)
}

// share links a file that the process may only read: as it is if it is on the same file system and safe to show, else by
// way of a copy in the stage.
func (j *Jail) share(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if shareable(f) {
		err := j.link(f, name)
		if err == nil || !errors.Is(err, unix.EXDEV) {
			return err
		}
	}
	staged, err := j.base.stage(f)
	if err != nil {
		return fmt.Errorf("stage %s: %w", path, err)
	}
	defer staged.Close()
	return j.link(staged, name)
}

// socket links a socket.
func (j *Jail) socket(path, name string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return j.link(f, name)
}

// Lend gives the running process a new file to write to: it appears in the jail as name and belongs to the process until Return.
// The owner is changed by the open file, before the process can reach it: whatever the process does with names in its root,
// no other file becomes its own. What has the name already, such as a file that a dead process of ours has lent, loses it.
func (j *Jail) Lend(f *os.File, name string, uid, gid int) error {
	if err := errors.Join(f.Chmod(0o600), f.Chown(uid, gid)); err != nil {
		return fmt.Errorf("lend %s: %w", f.Name(), err)
	}
	if err := unix.Unlinkat(int(j.root.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("lend %s: %w", f.Name(), err)
	}
	return j.link(f, name)
}

// Return takes a lent file back: it belongs to us again, and nobody may write to it. Whatever the process has put in its place
// in the jail is removed.
func (j *Jail) Return(f *os.File, name string) error {
	err := unix.Unlinkat(int(j.root.Fd()), name, 0)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, f.Chown(os.Geteuid(), os.Getegid()), f.Chmod(0o444))
}

// shareable files belong to us, and nobody else can write to them but everybody can read them.
func shareable(f *os.File) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err == nil && int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0 && st.Mode&0o004 != 0
}

// give links a file that the process may write to, and makes the process its owner.
func (j *Jail) give(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := j.link(f, name); err != nil {
		if errors.Is(err, unix.EXDEV) {
			return fmt.Errorf("%s is writable and not on the file system of %s: %w", path, j.base.dir, errs.ErrInvalid)
		}
		return err
	}
	if err := unix.Fchmodat(int(j.root.Fd()), name, 0o600, 0); err != nil {
		return fmt.Errorf("mode of %s: %w", name, err)
	}
	return j.own(name)
}

// link makes a hard link of exactly the open file.
func (j *Jail) link(f *os.File, name string) error {
	if err := unix.Linkat(unix.AT_FDCWD, fdPath(int(f.Fd())), int(j.root.Fd()), name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return fmt.Errorf("link %s into the jail: %w", f.Name(), err)
	}
	return nil
}

func (j *Jail) own(name string) error {
	if err := unix.Fchownat(int(j.root.Fd()), name, j.uid, j.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner of %s: %w", name, err)
	}
	return nil
}

// fdPath is a path that leads to exactly what is open as fd.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// MakePipe makes a named pipe of the process's own.
func (j *Jail) MakePipe(name string) error {
	if err := unix.Mkfifoat(int(j.root.Fd()), name, 0o600); err != nil {
		return fmt.Errorf("make the pipe %s: %w", name, err)
	}
	return j.own(name)
}

// OpenPipe opens both ends of a named pipe in the jail, without blocking. ErrNotFound when there is none, ErrCorrupt when
// something else is in its place.
func (j *Jail) OpenPipe(name string) (*os.File, error) {
	fd, err := j.lookUp(name, unix.S_IFIFO)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return os.OpenFile(fdPath(fd), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// Dial connects to a socket in the jail and makes sure that it is the process with the pid that listens on it. ErrNotFound
// when there is none, ErrCorrupt when something else is in its place or another process listens.
func (j *Jail) Dial(name string, pid int) (net.Conn, error) {
	fd, err := j.lookUp(name, unix.S_IFSOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: fdPath(fd), Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := listener(conn, pid); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// listener checks which process listens at the other end.
func listener(conn *net.UnixConn, pid int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	if int(cred.Pid) != pid {
		return fmt.Errorf("process %d listens on the API socket, not %d: %w", cred.Pid, pid, errs.ErrCorrupt)
	}
	return nil
}

// lookUp returns an O_PATH descriptor of something in the jail of the wanted file type.
func (j *Jail) lookUp(name string, typ uint32) (int, error) {
	fd, err := j.openBeneath(name)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("%s in the jail: %w", name, errs.ErrNotFound)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR) {
		return -1, fmt.Errorf("%s in the jail leads elsewhere: %w", name, errs.ErrCorrupt)
	}
	if err != nil {
		return -1, fmt.Errorf("%s in the jail: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != typ {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%s in the jail is not what it was made as: %w", name, errors.Join(errs.ErrCorrupt, err))
	}
	return fd, nil
}

// openBeneath opens something in the jail with O_PATH. The jail may be closed meanwhile by another goroutine.
func (j *Jail) openBeneath(name string) (fd int, err error) {
	conn, err := j.root.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := conn.Control(func(root uintptr) {
		fd, err = unix.Openat2(int(root), filepath.Clean(name), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
	})
	return fd, errors.Join(cerr, err)
}
