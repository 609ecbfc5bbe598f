// Package inroot opens and makes folders below another root than the process's own. A symbolic link there, absolute or with
// "..", leads where it leads for a process whose root that is, and never outside: the new root is an image of anybody's.
//
// It is a leaf package.
package inroot

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// Dir opens the folder name below the folder root as an O_PATH descriptor, which the caller closes. Folders that are missing
// are made with mode 0755. A link that leads nowhere is errs.ErrFailedPrecondition: what it would name is not made.
func Dir(root int, name string) (int, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	fd, err := open(root, name)
	if !errors.Is(err, unix.ENOENT) {
		return fd, wrap(name, err)
	}
	parent, err := Dir(root, path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	err = unix.Mkdirat(parent, path.Base(name), 0o755)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, wrap(name, err)
	}
	fd, err = open(root, name)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("folder /%s of the new root is a link to nothing: %w", name, errs.ErrFailedPrecondition)
	}
	return fd, wrap(name, err)
}

func open(root int, name string) (int, error) {
	if name == "" {
		name = "."
	}
	return unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("folder /%s of the new root: %w", name, err)
	}
	return nil
}
