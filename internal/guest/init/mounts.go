package guestinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/init/kmsg"
)

type mount struct {
	target, kind string
	flags        uintptr
	data         string
}

const (
	quietly = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	shared  = unix.MS_NOSUID | unix.MS_NODEV
)

// mounts come after the first stage's /proc, /dev and /lib/modules.
var mounts = []mount{
	{"/sys", "sysfs", quietly, ""},
	{"/sys/fs/cgroup", "cgroup2", quietly, "nsdelegate,memory_recursiveprot"},
	{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,ptmxmode=0666,gid=5"},
	{"/dev/shm", "tmpfs", shared, "mode=1777"},
	{"/dev/mqueue", "mqueue", quietly, ""},
	{"/run", "tmpfs", shared, "mode=0755"},
}

// folders are expected by programs although no package owns them below a fresh /run, or images lack them.
var folders = []struct {
	path string
	mode os.FileMode
}{
	{"/run/lock", 0o777 | os.ModeSticky},
	{"/tmp", 0o777 | os.ModeSticky},
	{"/var/tmp", 0o777 | os.ModeSticky},
	{"/root", 0o700},
}

// links are what /dev has in every Linux system, but the kernel does not make.
var links = map[string]string{
	"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
}

// mountAll makes the tree whole. Only a mount that fails is an error; an image that is mounted read-only may lack folders.
func mountAll() error {
	unix.Umask(0)
	defer unix.Umask(0o022)
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, f := range folders {
		err := os.MkdirAll(filepath.Dir(f.path), 0o755)
		if err == nil {
			err = os.Mkdir(f.path, f.mode)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			kmsg.Warn("folder %s: %v", f.path, err)
		}
	}
	for link, target := range links {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			kmsg.Warn("%v", err)
		}
	}
	return nil
}
