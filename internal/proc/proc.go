// Package proc names a process beyond doubt and notices its end at once.
//
// A pid alone says little: it may belong to another process a moment later. A Process holds a pidfd, which stays the same
// process for good; a start time and the machine's boot id let a later run of ours find that process again.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// maxStat bounds what is read of a file in /proc.
const maxStat = 4 << 10

// Process is a process, running or ended.
type Process struct {
	PID int
	f   *os.File
}

// Open returns the process that has the pid now. ErrNotFound when there is none.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("process %d: %w", pid, errs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return wrap(pid, fd), nil
}

// FromChild returns the process of a pidfd that came with the start of a child, and owns it.
func FromChild(pid, fd int) (*Process, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return wrap(pid, fd), nil
}

func wrap(pid, fd int) *Process {
	return &Process{PID: pid, f: os.NewFile(uintptr(fd), "pidfd "+strconv.Itoa(pid))}
}

// Wait returns nil when the process has ended, and os.ErrClosed when Close was called first. It costs no thread.
func (p *Process) Wait() error {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	if err := conn.Read(ended); err != nil { // the poller's own error for a closed file is not os.ErrClosed
		return fmt.Errorf("wait for process %d: %w", p.PID, os.ErrClosed)
	}
	return nil
}

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return false
	}
	is := false
	err = conn.Control(func(fd uintptr) { is = ended(fd) })
	return err == nil && is
}

// ended asks the kernel: a pidfd can be read from when its process is gone.
func ended(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
}

// Close gives the pidfd up and ends a Wait. The process is left alone.
func (p *Process) Close() error { return p.f.Close() }

// Status returns how the process ended, if the kernel tells somebody who is not its parent (Linux 6.15 and later do).
func (p *Process) Status() (unix.WaitStatus, bool) {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return 0, false
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	cerr := conn.Control(func(fd uintptr) { err = unix.IoctlPidfdInfo(int(fd), &info) })
	if cerr != nil || err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.Exit_code), true
}

// StartTime is when the process with the pid began, in clock ticks since boot. ErrNotFound when there is no such process.
func StartTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, fmt.Errorf("process %d: %w", pid, errs.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return parseStat(data)
}

// parseStat reads field 22. The second field is the command's name in brackets and may itself hold blanks and brackets.
func parseStat(data []byte) (uint64, error) {
	const startTime = 22
	i := bytes.LastIndexByte(data, ')')
	if i < 0 || len(data) > maxStat {
		return 0, fmt.Errorf("stat of a process: %w", errs.ErrCorrupt)
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < startTime-2 {
		return 0, fmt.Errorf("stat of a process: %d fields: %w", len(fields)+2, errs.ErrCorrupt)
	}
	n, err := strconv.ParseUint(fields[startTime-3], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stat of a process: %w: %w", err, errs.ErrCorrupt)
	}
	return n, nil
}

// Executable names the file that the process with the pid runs, by device and inode: it stays the same although the file is replaced or
// removed, as by an upgrade. ErrNotFound when there is no such process.
func Executable(pid int) (string, error) {
	var st unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return "", fmt.Errorf("process %d: %w", pid, errs.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("executable of process %d: %w", pid, err)
	}
	return fmt.Sprintf("%d:%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino), nil
}

// BootID is a random name of the time since the machine was switched on.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}
