package pager

import (
	"fmt"
	"os"
	"runtime"
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
// executes nothing, looks into no other process and cannot be looked into, and has small limits. Nothing can be undone. nil changes
// nothing.
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
		{"supplementary groups", func() error { return syscall.Setgroups(nil) }},
		{"gid", func() error { return syscall.Setresgid(id.GID, id.GID, id.GID) }},
		{"uid", func() error { return syscall.Setresuid(id.UID, id.UID, id.UID) }}, // and with it the capabilities
		{"system calls", forbid},
		{"dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }}, // of the process, not a thread
		{"check", func() error { return nothingLeft(id) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("give up privilege: %s: %w", step.what, err)
		}
	}
	return nil
}

// nothingLeft fails when root is still within reach. Leaving uid 0 empties the capabilities, unless whoever started the process has
// asked the kernel for something else.
func nothingLeft(id *Identity) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	for _, c := range caps {
		if c.Effective|c.Permitted != 0 {
			return fmt.Errorf("capabilities %+v are left: %w", caps, errs.ErrFailedPrecondition)
		}
	}
	if os.Geteuid() != id.UID || os.Getegid() != id.GID || syscall.Setuid(0) == nil {
		return fmt.Errorf("uid %d, gid %d: %w", os.Geteuid(), os.Getegid(), errs.ErrFailedPrecondition)
	}
	return nil
}

// forbidden is what a process that only answers faults never does, and what somebody in it would do first.
var forbidden = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_BPF,
	unix.SYS_IO_URING_SETUP, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_KEYCTL, unix.SYS_ADD_KEY,
}

// filter is a program for the kernel that answers EPERM to the forbidden calls and to calls by another architecture's numbers.
func filter() ([]unix.SockFilter, error) {
	arches := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}
	arch, known := arches[runtime.GOARCH]
	if !known {
		return nil, fmt.Errorf("architecture %s: %w", runtime.GOARCH, errs.ErrFailedPrecondition)
	}
	const (
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		isEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		answer  = unix.BPF_RET | unix.BPF_K
		x32     = 0x40000000 // the mark of x86-64's second set of numbers
	)
	n := uint8(len(forbidden))
	code := []unix.SockFilter{
		{Code: load, K: 4}, // seccomp_data.arch
		{Code: isEqual, K: arch, Jf: n + 3},
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: atLeast, K: x32, Jt: n + 1},
	}
	for i, nr := range forbidden {
		code = append(code, unix.SockFilter{Code: isEqual, K: nr, Jt: n - uint8(i)})
	}
	return append(code,
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}), nil
}
