package filesystem

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// ErrNoSpace is the kind of an operation that a full disk or quota ended. It is an errs.ErrResourceExhausted.
var ErrNoSpace = fmt.Errorf("no space: %w", errs.ErrResourceExhausted)

// kinds are what the kernel's errors mean for a caller.
var kinds = map[syscall.Errno]error{
	unix.ENOENT: errs.ErrNotFound, unix.EEXIST: errs.ErrAlreadyExists,
	unix.ENOTDIR: errs.ErrInvalid, unix.EISDIR: errs.ErrInvalid, unix.EINVAL: errs.ErrInvalid, unix.ENAMETOOLONG: errs.ErrInvalid,
	unix.ENXIO: errs.ErrInvalid, unix.EOPNOTSUPP: errs.ErrFailedPrecondition,
	unix.EACCES: errs.ErrPermissionDenied, unix.EPERM: errs.ErrPermissionDenied,
	unix.ELOOP: errs.ErrFailedPrecondition, unix.EROFS: errs.ErrFailedPrecondition, unix.EBUSY: errs.ErrFailedPrecondition,
	unix.ENOTEMPTY: errs.ErrFailedPrecondition, unix.EXDEV: errs.ErrFailedPrecondition, unix.ETXTBSY: errs.ErrFailedPrecondition,
	unix.EMLINK: errs.ErrFailedPrecondition,
	unix.ENOSPC: ErrNoSpace, unix.EDQUOT: ErrNoSpace, unix.EFBIG: ErrNoSpace,
	unix.EMFILE: errs.ErrResourceExhausted, unix.ENFILE: errs.ErrResourceExhausted, unix.ENOMEM: errs.ErrResourceExhausted,
}

// failed gives the error of a system call a kind, and a text that names the path. An error that has a kind already is left alone.
func failed(what, path string, err error) error {
	if err == nil {
		return nil
	}
	var already *fault.Fault
	if errors.As(err, &already) {
		return err
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s '%s': %w", what, path, err)
	}
	kind, ok := kinds[errno]
	if !ok {
		return fmt.Errorf("%s '%s': %w", what, path, errno)
	}
	switch errno {
	case unix.ENOENT:
		return fault.New(kind, "path '%s' does not exist", path)
	case unix.ELOOP:
		return fault.New(kind, "too many symbolic links on the way to '%s': there may be a circle", path)
	case unix.EXDEV:
		return fault.New(kind, "%s '%s': source and destination are on different file systems: copy and remove instead", what, path)
	case unix.ENOSPC, unix.EDQUOT:
		return fault.New(kind, "%s '%s': not enough disk space available", what, path)
	}
	return fault.New(kind, "%s '%s': %v", what, path, errno)
}

// Failed gives the error of a system call on a path its kind and a text.
func Failed(what, path string, err error) error { return failed(what, path, err) }

func invalid(format string, args ...any) error { return fault.New(errs.ErrInvalid, format, args...) }
