package firecracker

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/printable"
)

// outcome is all that is known of how a process ended.
type outcome struct {
	status unix.WaitStatus
	known  bool // status is valid
	killed bool // its end was asked for
	oom    bool // the kernel ended a process of its cgroup for its memory limit
}

// exitCodes are Firecracker's own exit codes.
var exitCodes = map[int]string{
	1: "a general error", 148: "a system call that its seccomp filter forbids", 149: "SIGBUS", 150: "SIGSEGV",
	151: "a file over its size limit", 152: "a bad configuration file", 153: "bad arguments", 154: "its CPU time limit",
	155: "SIGPIPE", 156: "SIGHUP", 157: "SIGILL",
}

// exitOf says why a machine ended. What was asked for goes before what it looks like: a process that is killed dies of a
// signal, and so does one that ran out of memory.
func exitOf(o outcome) vmm.Exit {
	e := vmm.Exit{Code: -1, Time: time.Now().UTC()}
	if o.known && o.status.Exited() {
		e.Code = o.status.ExitStatus()
	}
	if o.known && o.status.Signaled() {
		e.Signal = int(o.status.Signal())
	}
	switch {
	case o.known && o.status.Exited() && e.Code == 0:
		e.Reason, e.Detail = vmm.ExitGuest, "the guest rebooted, panicked or shut down"
	case o.killed:
		e.Reason, e.Detail = vmm.ExitKilled, "it was killed on request"
	case o.oom:
		e.Reason, e.Detail = vmm.ExitOOM, "the host killed it: it reached the memory limit of its cgroup"
	case !o.known:
		e.Reason, e.Detail = vmm.ExitUnknown, "it ended while nobody who could collect its exit status was there"
	case o.status.Signaled():
		e.Reason = vmm.ExitSignal
		e.Detail = fmt.Sprintf("signal %d (%s) ended it", e.Signal, unix.SignalName(o.status.Signal()))
	default:
		e.Reason = vmm.ExitError
		e.Detail = fmt.Sprintf("firecracker ended with code %d%s", e.Code, meaning(e.Code))
	}
	return e
}

func meaning(code int) string {
	if text, ok := exitCodes[code]; ok {
		return ": " + text
	}
	return ""
}

func waitStatus(state *os.ProcessState) (unix.WaitStatus, bool) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	return unix.WaitStatus(ws), ok
}

// lastWords is the end of a log on one line, bounded.
func lastWords(log string) string {
	const limit = 500
	return printable.Line(printable.Tail([]byte(log), limit), limit)
}
