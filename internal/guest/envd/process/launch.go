package process

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// launch starts a command. Nothing reads its output until wait is called.
func launch(spec Spec, limits Limits) (*Process, error) {
	dir, err := spec.folder()
	if err != nil {
		return nil, err
	}
	env, path := spec.environment()
	file, err := executable(spec.Cmd, path)
	if err != nil {
		return nil, err
	}
	credential, err := spec.credential()
	if err != nil {
		return nil, err
	}
	std, err := spec.stdio()
	if err != nil {
		return nil, fault.New(errs.ErrResourceExhausted, "make the streams of '%.100s': %v", spec.Cmd, err)
	}
	leader, err := os.StartProcess(file, append([]string{spec.Cmd}, spec.Args...), &os.ProcAttr{
		Dir: dir, Env: env, Files: std.child[:],
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: spec.Terminal != nil, Ctty: 0, Credential: credential},
	})
	std.closeChild()
	if err != nil {
		std.closeOwn()
		return nil, startError(spec.Cmd, err)
	}
	p := &Process{spec: spec, pid: leader.Pid, leader: leader, tty: std.tty, input: std.input, readers: std.readers,
		hub: newHub(leader.Pid, limits), grace: limits.Grace}
	p.output, p.give = context.WithCancel(context.Background())
	if !spec.Deadline.IsZero() {
		p.timer = time.AfterFunc(time.Until(spec.Deadline), p.expire)
	}
	return p, nil
}

// credential is whom the command runs as. Only root can change that: anybody else runs commands as himself.
func (s *Spec) credential() (*syscall.Credential, error) {
	if os.Geteuid() == 0 {
		return &syscall.Credential{Uid: s.User.UID, Gid: s.User.GID, Groups: s.User.Groups}, nil
	}
	if int64(s.User.UID) != int64(os.Geteuid()) {
		return nil, fault.New(errs.ErrFailedPrecondition, "envd is not root and can't run a command as '%s'", s.User.Name)
	}
	return nil, nil
}

// startError tells why the kernel did not start a command.
func startError(cmd string, err error) error {
	kind, reason := errs.ErrInvalid, err
	var errno syscall.Errno
	if errors.As(err, &errno) {
		reason = errno
		switch errno {
		case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE:
			kind = errs.ErrResourceExhausted
		}
	}
	return fault.New(kind, "error starting process '%.200s': %v", cmd, reason)
}

// stdio is the three streams of a command, both sides.
type stdio struct {
	child   [3]*os.File
	tty     *os.File
	input   *input
	readers []*os.File
}

func (s *Spec) stdio() (*stdio, error) {
	if s.Terminal != nil {
		return terminalIO(*s.Terminal, s.User.UID)
	}
	return pipeIO(s.Stdin)
}

func terminalIO(size Size, uid uint32) (*stdio, error) {
	master, slave, err := openTerminal(size, uid)
	if err != nil {
		return nil, err
	}
	return &stdio{child: [3]*os.File{slave, slave, slave}, tty: master, input: newInput(master), readers: []*os.File{master}}, nil
}

func pipeIO(stdin bool) (_ *stdio, err error) {
	std := &stdio{}
	defer func() {
		if err != nil {
			std.closeChild()
			std.closeOwn()
		}
	}()
	if stdin {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		std.child[0], std.input = r, newInput(w)
	} else if std.child[0], err = os.Open(os.DevNull); err != nil {
		return nil, err
	}
	for i := 1; i <= 2; i++ {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		std.child[i], std.readers = w, append(std.readers, r)
	}
	return std, nil
}

// closeChild closes the command's side, so that the output ends when the command and its children have closed theirs.
func (s *stdio) closeChild() {
	for _, f := range s.child {
		if f != nil {
			_ = f.Close() // a terminal is here three times
		}
	}
}

// closeOwn closes envd's side.
func (s *stdio) closeOwn() {
	if s.input != nil {
		s.input.abandon()
	}
	for _, f := range s.readers {
		_ = f.Close()
	}
}
