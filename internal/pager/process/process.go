// Package process starts page-fault servers, one process a machine, and finds them again.
//
//	p, err := starter.Start(ctx, spec)     // it listens, and has no privilege left
//	…                                      // the machine is started on p.Socket()
//	p, err = starter.Recover(ctx, handle)  // the same one, found again by a later process
//	<-p.Done()                             // it ended: the machine must end, too
//	err = starter.Remove(ctx, id)          // it, and all that it had on the host
//
// A pager outlives whoever started it. Its host objects have names that follow from the sandbox's id: the group
// wrenn-pager/<id>, in which it is born, and the folder sandboxes/<id>/pager with its two sockets, its last words and the working
// set that it records. So Remove and List need no record but the id.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cgroup"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/proc"
)

// The names in a pager's folder.
const (
	folderName  = "pager"
	socketName  = "socket"      // for the machine
	controlName = "control"     // for us
	wordsName   = "last-words"  // standard error
	recordName  = "working-set" // of this start
	leftName    = "left"        // made when all memory is in and the machine needs no pager any more
)

// pidsMax bounds a pager's threads.
const pidsMax = 32

// maxWords bounds what is read of a pager's last words.
const maxWords = 4 << 10

// Starter starts pagers on this host.
type Starter struct {
	// StateDir is the folder of all state: a pager's folder is sandboxes/<id>/pager in it.
	StateDir string
	// Command is the program to run, with the arguments that make it a pager: Main takes what is added.
	Command []string
	// CgroupRoot is where the unified hierarchy is mounted; empty means cgroup.DefaultRoot.
	CgroupRoot string
}

// Spec is what one pager serves.
type Spec struct {
	// ID is the sandbox's.
	ID string
	// Builds is the folder of builds and Build the one to serve.
	Builds, Build string
	// Prefetch is a working set to bring in first; "" for none.
	Prefetch string
	// Machine is the uid and gid that the machine runs under, which may connect.
	Machine int
	// Become is the uid and gid that the pager runs under.
	Become int
	// Stream brings in everything when there is nothing else to do, and then ends the pager: see Left.
	Stream bool
}

// Process is one pager.
type Process struct {
	process *proc.Process
	folder  string
	handle  Handle
	child   bool
	left    bool // written before done is closed
	done    chan struct{}
}

// Handle names a pager's process beyond doubt.
type Handle struct {
	PID        int    `json:"pid"`
	StartTime  uint64 `json:"start_time"` // in clock ticks since boot
	BootID     string `json:"boot_id"`
	Executable string `json:"executable"` // as proc.Executable says it
}

// Failpoints are the names of the points that every Start passes.
func Failpoints() []string { return failpoint.Names(pointFolder, pointGroup, pointReady) }

var (
	pointFolder = failpoint.New("pager.folder")
	pointGroup  = failpoint.New("pager.group")
	pointReady  = failpoint.New("pager.ready")
)

func (s Starter) folder(sandbox string) string {
	return filepath.Join(s.StateDir, "sandboxes", sandbox, folderName)
}

func (s Starter) groups() *cgroup.Parent {
	root := s.CgroupRoot
	if root == "" {
		root = cgroup.DefaultRoot
	}
	return cgroup.New(root, cgroup.Pagers)
}

// Start starts a pager and returns when a machine can connect to it. When it fails nothing of it is left. Errors:
// ErrAlreadyExists when the sandbox has one, ErrUnavailable with its last words when it did not come up.
func (s Starter) Start(ctx context.Context, spec Spec) (_ *Process, err error) {
	if _, err := id.Parse(spec.ID); err != nil {
		return nil, err
	}
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	folder := s.folder(spec.ID)
	if err := os.Mkdir(folder, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("pager of %s: %w", spec.ID, errs.ErrAlreadyExists)
		}
		return nil, fmt.Errorf("pager of %s: %w", spec.ID, err)
	}
	cu.Add("remove the pager", func(ctx context.Context) error { return s.Remove(ctx, spec.ID) })
	if err := os.Chown(folder, spec.Become, spec.Become); err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointFolder); err != nil {
		return nil, err
	}
	group, err := s.groups().Create(spec.ID, cgroup.Limits{PIDsMax: pidsMax})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointGroup); err != nil {
		return nil, err
	}
	p, err := s.launch(ctx, spec, group)
	if err != nil {
		return nil, fmt.Errorf("pager of %s: %w", spec.ID, err)
	}
	cu.Add("stop watching", func(context.Context) error { return p.Close() })
	if err := failpoint.Here(ctx, pointReady); err != nil {
		return nil, err
	}
	cu.Release()
	return p, nil
}

// Recover returns the pager that a handle tells of: it runs, or has left. ErrNotFound when it is gone otherwise, or its pid is another
// process' by now: the one of the handle began at that time, runs that file, is in the sandbox's group, and nobody else listens on the
// socket in its folder. ErrUnavailable when that can't be found out.
func (s Starter) Recover(_ context.Context, sandbox string, h Handle) (*Process, error) {
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	if boot != h.BootID {
		return nil, fmt.Errorf("pager %d of %s ran before the host was started: %w", h.PID, sandbox, errs.ErrNotFound)
	}
	process, err := s.find(sandbox, h)
	if hasLeft(s.folder(sandbox)) { // looked at last: it may have left just now
		if process != nil {
			_ = process.Close()
		}
		p := &Process{folder: s.folder(sandbox), handle: h, child: true, left: true, done: make(chan struct{})}
		close(p.done)
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pager %d of %s: %w", h.PID, sandbox, err)
	}
	return watch(process, s.folder(sandbox), h, nil), nil
}

// find returns the process of a handle. The pidfd is opened first, so what is checked after it is checked of the process that it names, or
// of none.
func (s Starter) find(sandbox string, h Handle) (*proc.Process, error) {
	process, err := proc.Open(h.PID)
	if err != nil {
		return nil, errors.Join(err, errs.ErrNotFound)
	}
	err = s.matches(sandbox, h)
	if process.Ended() || err != nil && !errors.Is(err, errs.ErrUnavailable) {
		err = errors.Join(err, errs.ErrNotFound)
	}
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return process, nil
}

// matches says why a process is not the one of a handle, nil when it is.
func (s Starter) matches(sandbox string, h Handle) error {
	members, err := s.groups().Get(sandbox).Members()
	if err != nil {
		return err
	}
	began, err := proc.StartTime(h.PID)
	if err != nil {
		return err
	}
	another := errors.New("the pid is another process' by now")
	if began != h.StartTime || !slices.Contains(members, h.PID) {
		return another
	}
	executable, err := proc.Executable(h.PID)
	if err != nil {
		return err
	}
	if executable != h.Executable {
		return another
	}
	listener, err := listenerOf(filepath.Join(s.folder(sandbox), controlName))
	if err == nil && listener != 0 && listener != h.PID {
		err = fmt.Errorf("process %d listens on its socket", listener)
	}
	return err
}

// listenerOf is the pid of the process that listens on a socket, 0 for none: a pager that is about to leave listens no more.
func listenerOf(path string) (int, error) {
	conn, err := net.DialTimeout("unix", path, dialTime)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", err, errs.ErrUnavailable)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// dialTime bounds a connection to a socket of this host.
const dialTime = 10 * time.Second

// hasLeft says whether the pager of a folder let go of the memory. Only the pager can have said so: the folder is its own.
func hasLeft(folder string) bool {
	_, err := os.Lstat(filepath.Join(folder, leftName))
	return err == nil
}

// Remove ends the sandbox's pager and removes its group and folder. It is idempotent.
func (s Starter) Remove(ctx context.Context, sandbox string) error {
	if _, err := id.Parse(sandbox); err != nil {
		return err
	}
	group := s.groups().Get(sandbox)
	if err := group.Kill(ctx); err != nil {
		return err
	}
	return errors.Join(group.Remove(), s.groups().Tidy(), os.RemoveAll(s.folder(sandbox)))
}

// List returns the ids of the sandboxes that have any object of a pager, whole or half made.
func (s Starter) List(context.Context) ([]string, error) {
	ids, err := s.groups().List()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.StateDir, "sandboxes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if _, err := os.Lstat(s.folder(e.Name())); err == nil {
			ids = append(ids, e.Name())
		}
	}
	ids = slices.DeleteFunc(ids, func(s string) bool {
		_, err := id.Parse(s)
		return err != nil
	})
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// watch waits for the end of a process from then on. Collect, if there is one, collects the end of a child; nobody else would do it,
// so a child is waited for whether or not its Process is closed.
func watch(process *proc.Process, folder string, h Handle, collect func()) *Process {
	p := &Process{process: process, folder: folder, handle: h, child: collect != nil, done: make(chan struct{})}
	go func() {
		if process.Wait() != nil {
			return // closed
		}
		if collect != nil {
			collect()
			_ = process.Close()
		}
		p.left = hasLeft(folder)
		close(p.done)
	}()
	return p
}

// Handle is what Recover needs.
func (p *Process) Handle() Handle { return p.handle }

// Socket is what the machine connects to.
func (p *Process) Socket() string { return filepath.Join(p.folder, socketName) }

// Done is closed as soon as the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Left says that the pager ended because all memory is in: its machine goes on without it. Valid once Done is closed.
func (p *Process) Left() bool { return p.left }

// LastWords is the end of what the pager said before it ended, one line.
func (p *Process) LastWords() string {
	f, err := os.OpenFile(filepath.Join(p.folder, wordsName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	words, err := io.ReadAll(io.LimitReader(f, maxWords))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(words)), " ")
}

// Client gives the pager commands.
func (p *Process) Client() pager.Client {
	return pager.Client{Path: filepath.Join(p.folder, controlName)}
}

// StopRecording ends the record of the working set and returns its file. A pager that has left has done so.
func (p *Process) StopRecording(ctx context.Context) (path string, err error) {
	path = filepath.Join(p.folder, recordName)
	select {
	case <-p.done:
		if p.left {
			return path, nil
		}
	default:
	}
	_, err = p.Client().StopRecording(ctx)
	return path, err
}

// Close gives up what the watching costs. It does not end the process, and does nothing for a child of this process.
func (p *Process) Close() error {
	if p.child {
		return nil
	}
	return p.process.Close()
}
