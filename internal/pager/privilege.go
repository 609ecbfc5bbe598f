package pager

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// The process's limits while it serves.
const (
	spareFiles  = 64       // descriptors beyond the build's files
	maxFileSize = 16 << 20 // of what it writes: the record, and what goes to standard error
)

// dropPrivilege makes the whole process, every thread of it, nobody in particular: another user without groups or capabilities, that
// gains nothing by executing a program, cannot be looked into, and has small limits. Nothing can be undone. nil changes nothing.
//
// A binary with cgo in it cannot do that for all threads: ErrFailedPrecondition.
func dropPrivilege(id *Identity, files int) error {
	if id == nil {
		return nil
	}
	if id.UID <= 0 || id.GID <= 0 {
		return errs.Field("drop-to", fmt.Sprintf("%d:%d keeps the rights of root", id.UID, id.GID), "give a uid and gid above 0")
	}
	for what, limit := range map[int]uint64{
		unix.RLIMIT_NOFILE: uint64(files + spareFiles), unix.RLIMIT_FSIZE: maxFileSize, unix.RLIMIT_CORE: 0,
	} {
		if err := unix.Prlimit(0, what, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
			return fmt.Errorf("set limit %d: %w", what, err)
		}
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"no new privileges", func() error { return prctl(unix.PR_SET_NO_NEW_PRIVS, 1) }},
		{"supplementary groups", func() error { return syscall.Setgroups(nil) }},
		{"gid", func() error { return syscall.Setresgid(id.GID, id.GID, id.GID) }},
		{"uid", func() error { return syscall.Setresuid(id.UID, id.UID, id.UID) }},
		{"capabilities", dropCapabilities},
		{"dumpable", func() error { return prctl(unix.PR_SET_DUMPABLE, 0) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("give up privilege: %s: %w", step.what, err)
		}
	}
	if os.Geteuid() != id.UID || os.Getegid() != id.GID || syscall.Setuid(0) == nil {
		return fmt.Errorf("give up privilege: it is still there: %w", errs.ErrFailedPrecondition)
	}
	return nil
}
