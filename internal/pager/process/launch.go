package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"wrenn.dev/wrenn/internal/cgroup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/proc"
)

// readyFD is the descriptor on which a pager says that it is ready, by one byte.
const readyFD = 3

// args are what Main reads.
func (s Starter) args(spec Spec) []string {
	folder := s.folder(spec.ID)
	args := append(s.Command[1:len(s.Command):len(s.Command)],
		"--builds", spec.Builds, "--build", spec.Build, "--socket", filepath.Join(folder, socketName), "--control", filepath.Join(folder, controlName),
		"--record", filepath.Join(folder, recordName), "--machine", strconv.Itoa(spec.Machine), "--become", strconv.Itoa(spec.Become))
	if spec.Prefetch != "" {
		args = append(args, "--prefetch", spec.Prefetch)
	}
	if spec.Stream {
		args = append(args, "--stream")
	}
	return args
}

// launch starts the process in its group and waits until it is ready or gone.
func (s Starter) launch(ctx context.Context, spec Spec, group *cgroup.Group) (*Process, error) {
	dir, err := group.Open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	words, err := os.OpenFile(filepath.Join(s.folder(spec.ID), wordsName), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer words.Close()
	ready, said, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	fd := -1
	cmd := exec.Command(s.Command[0], s.args(spec)...)
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.ExtraFiles = "/", []string{pager.Environment}, words, []*os.File{said}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd()), PidFD: &fd}
	err = proc.StartWithoutHugePages(cmd)
	_ = said.Close()
	if err != nil {
		return nil, err
	}
	p, err := adopt(cmd, fd, s.folder(spec.ID))
	if err != nil {
		return nil, err
	}
	if err := await(ctx, ready); err != nil {
		words := p.LastWords()
		return nil, fmt.Errorf("it did not come up: %w: %s: %w", err, words, errors.Join(errs.ErrUnavailable, p.Close()))
	}
	return p, nil
}

// adopt makes a Process of a started command.
func adopt(cmd *exec.Cmd, fd int, folder string) (*Process, error) {
	process, err := proc.FromChild(cmd.Process.Pid, fd)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	h := Handle{PID: cmd.Process.Pid}
	if h.StartTime, err = proc.StartTime(h.PID); err == nil {
		h.BootID, err = proc.BootID()
	}
	if err == nil {
		h.Executable, err = proc.Executable(h.PID)
	}
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait(), process.Close())
	}
	return watch(process, folder, h, func() { _ = cmd.Wait() }), nil
}

// await waits for the byte that says that the pager is ready. A pager that ends closes the pipe.
func await(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = ready.Close() })
	defer stop()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return errors.New("it ended")
	}
	return nil
}
