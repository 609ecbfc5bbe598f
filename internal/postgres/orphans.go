package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/proc"
)

// stopOrphans ends what still works on a data folder: the server of a process of ours that was killed, and then its pid file, which
// may by now name a process of somebody else: PostgreSQL would take that for another server.
//
// All of a server's processes have its data folder as their working folder, whatever else the machine runs. The pid file goes only
// when none of them is left: it is what keeps two servers apart.
//
// Preconditions: the caller has the folder's lock.
func stopOrphans(ctx context.Context, data string) error {
	orphans, err := workingIn(data)
	if err != nil {
		return err
	}
	for _, pid := range orphans {
		if err := stop(ctx, pid, data); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// workingIn are the processes whose working folder is dir.
func workingIn(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && worksIn(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}

// stop has a process shut down: to a server that is its fast shutdown, to one of its parts the end of what it does.
func stop(ctx context.Context, pid int, data string) error {
	p, err := proc.Open(pid)
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if !worksIn(pid, data) { // asked again now that the process can't become another one
		return nil
	}
	if err := unix.Kill(pid, unix.SIGINT); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop the postgres %d that runs on %s: %w", pid, data, err)
	}
	cut := context.AfterFunc(ctx, func() { _ = p.Close() })
	defer cut()
	if err := p.Wait(); err != nil {
		return fmt.Errorf("the postgres %d that ran on %s does not end: %w: %w", pid, data, context.Cause(ctx), errs.ErrUnavailable)
	}
	return nil
}
