package firecracker

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"wrenn.dev/wrenn/internal/cgroup"
	"wrenn.dev/wrenn/internal/proc"
)

// Paths inside every jail.
const (
	kernelName    = "kernel"
	initramfsName = "initramfs"
	drivesName    = "drives/"
	logName       = "log"
	consoleName   = "console"
	socketName    = "run/firecracker.socket"
	// What a machine begins from.
	stateName  = "state"
	memoryName = "memory"
	pagerName  = "pager.socket"
	// What a machine is frozen into.
	newStateName  = "new-state"
	newMemoryName = "new-memory"
)

// maxOpenFiles is the jailer's own default. Firecracker grows its table of files to this size at its start, which saves time
// later.
const maxOpenFiles = 2048

// launch is what a jailed process is started with.
type launch struct {
	id          string
	exec        string // Firecracker, without symbolic links
	jailer      string
	base        string // the base of all jails
	root        string // the process's root
	netns       string
	uid, gid    int
	maxFileSize int64
	cgroup      *os.File
	log         *os.File
	console     *os.File // nil for no console
}

// child is a started process and how to collect its end.
type child struct {
	process *proc.Process
	wait    func() (*os.ProcessState, error)
}

// launcher starts a process.
type launcher func(l launch) (*child, error)

// args are the jailer's arguments. It drops every privilege, enters the namespaces and the chroot, and becomes Firecracker.
// No --cgroup is given: the process is in its group already, and told so, or the jailer would move it to another one.
func (l *launch) args() []string {
	return []string{
		"--id", l.id, "--exec-file", l.exec, "--uid", strconv.Itoa(l.uid), "--gid", strconv.Itoa(l.gid),
		"--chroot-base-dir", l.base, "--netns", l.netns,
		"--cgroup-version", "2", "--parent-cgroup", cgroup.Machines + "/" + l.id,
		"--resource-limit", fmt.Sprintf("fsize=%d", l.maxFileSize), "--resource-limit", fmt.Sprintf("no-file=%d", maxOpenFiles),
		"--", "--api-sock", "/" + socketName, "--log-path", "/" + logName, "--level", "Warning", "--show-level",
	}
}

// launchJailed starts the jailer, which becomes Firecracker under the same pid. The process is born in its cgroup and in a
// pid namespace of its own, in a session of its own so that a terminal's signals don't reach it, and nothing ties its life to
// ours.
func launchJailed(l launch) (*child, error) {
	fd := -1
	cmd := exec.Command(l.jailer, l.args()...)
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Stderr = l.log
	if l.console != nil {
		cmd.Stdout = l.console
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID,
		Setsid:      true,
		UseCgroupFD: true,
		CgroupFD:    int(l.cgroup.Fd()),
		PidFD:       &fd,
	}
	if err := proc.Start(cmd); err != nil {
		return nil, fmt.Errorf("start the jailer: %w", err)
	}
	return adopt(cmd, fd)
}

// adopt makes a child of a started command.
func adopt(cmd *exec.Cmd, fd int) (*child, error) {
	wait := func() (*os.ProcessState, error) {
		err := cmd.Wait()
		return cmd.ProcessState, err
	}
	p, err := proc.FromChild(cmd.Process.Pid, fd)
	if err != nil {
		_ = cmd.Process.Kill()
		_, _ = wait()
		return nil, err
	}
	return &child{process: p, wait: wait}, nil
}
