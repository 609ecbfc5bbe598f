package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/inotify"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/api"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
	"wrenn.dev/wrenn/internal/vmm/firecracker/sink"
)

// start is one start under way.
type start struct {
	d        *Driver
	cfg      vmm.Config
	binaries binaries
	cu       *cleanup.Stack

	group group
	jail  *jail.Jail
	m     *machine
}

// step is a part of a start. Its failpoint is passed when it is done, and has the name under which it is shown.
type step struct {
	done failpoint.Point
	run  func(*start, context.Context) error
}

func newStep(name string, run func(*start, context.Context) error) step {
	return step{failpoint.New(stepPrefix + name), run}
}

// pointStart comes before anything is made.
var pointStart = failpoint.New(stepPrefix + "start")

// Each of the host's objects is made by one of the first steps; then a machine is described and booted, or loaded.
var (
	firstSteps = []step{
		newStep("cgroup", (*start).makeGroup),
		newStep("chroot", (*start).makeJail),
		newStep("files", (*start).provide),
		newStep("process", (*start).spawn),
		newStep("socket", (*start).await),
	}
	bootSteps = append(slices.Clone(firstSteps), newStep("configure", (*start).configure), newStep("boot", (*start).boot))
	loadSteps = append(slices.Clone(firstSteps), newStep("load", (*start).load), newStep("metadata", (*start).fill),
		newStep("resume", (*start).resume))
)

// stepPrefix is before the names of steps wherever they are shown with those of others.
const stepPrefix = "vmm."

// Failpoints are the names of the points that every Start that boots passes, in their order: one before anything is made and one
// after each step. LoadFailpoints are those of a Start from a frozen machine.
func Failpoints() []string { return points(bootSteps) }

// LoadFailpoints are the names of the points that every Start from a frozen machine passes.
func LoadFailpoints() []string { return points(loadSteps) }

func points(steps []step) []string {
	names := failpoint.Names(pointStart)
	for _, s := range steps {
		names = append(names, s.done.String())
	}
	return names
}

// Start boots a machine, or begins from a frozen one.
func (d *Driver) Start(ctx context.Context, cfg vmm.Config) (_ vmm.Machine, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	b, err := d.look(ctx)
	if err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointStart); err != nil {
		return nil, err
	}
	s := &start{d: d, cfg: cfg, binaries: b, cu: cleanup.New(ctx)}
	defer s.cu.Clean(&err)
	steps := bootSteps
	if cfg.From != nil {
		steps = loadSteps
	}
	var took []vmm.Step
	for _, step := range steps {
		began := time.Now()
		err := step.run(s, ctx)
		took = append(took, vmm.Step{Name: step.done.String(), Took: time.Since(began)})
		if err == nil {
			err = failpoint.Here(ctx, step.done)
		}
		if err != nil {
			return nil, s.explain(ctx, err)
		}
	}
	s.cu.Release()
	s.m.timings = took
	return s.m, nil
}

// makeGroup makes the cgroup. It is the first object, and what it is undone by ends whatever is born in it later.
func (s *start) makeGroup(context.Context) error {
	g, err := s.d.groups.Create(s.cfg.ID, s.cfg.Jail.Limits)
	if err != nil {
		return err
	}
	s.group = g
	s.cu.Add("remove the cgroup", func(ctx context.Context) error {
		return errors.Join(g.Kill(ctx), g.Remove(), s.d.groups.Tidy())
	})
	return nil
}

// makeJail makes the chroot.
func (s *start) makeJail(context.Context) error {
	j, err := s.d.jails.Create(execName(s.binaries.exec), s.cfg.ID, s.cfg.Jail.UID, s.cfg.Jail.GID)
	if err != nil {
		return err
	}
	s.jail = j
	s.cu.Add("remove the jail", func(ctx context.Context) error {
		return errors.Join(j.Close(), s.group.Kill(ctx), s.d.jails.Remove(ctx, s.cfg.ID))
	})
	return nil
}

// provide puts the machine's files into the chroot: all of them before the process runs.
func (s *start) provide(ctx context.Context) error {
	files := s.origin()
	for _, d := range s.cfg.Drives {
		files = append(files, vmm.Drive{ID: drivesName + d.ID, Path: d.Path, ReadOnly: d.ReadOnly})
	}
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := s.jail.Provide(f.Path, f.ID, f.ReadOnly); err != nil {
			return fmt.Errorf("provide %s: %w", f.ID, err)
		}
	}
	pipes := []string{logName}
	if s.cfg.Console {
		pipes = append(pipes, consoleName)
	}
	for _, name := range pipes {
		if err := s.jail.MakePipe(name); err != nil {
			return err
		}
	}
	return nil
}

// origin is what the machine begins from, by the names in the jail.
func (s *start) origin() []vmm.Drive {
	from := s.cfg.From
	switch {
	case from == nil:
		return []vmm.Drive{{ID: kernelName, Path: s.cfg.Kernel, ReadOnly: true}, {ID: initramfsName, Path: s.cfg.Initramfs, ReadOnly: true}}
	case from.Pager != "":
		return []vmm.Drive{{ID: stateName, Path: from.State, ReadOnly: true}, {ID: pagerName, Path: from.Pager, ReadOnly: true}}
	}
	return []vmm.Drive{{ID: stateName, Path: from.State, ReadOnly: true}, {ID: memoryName, Path: from.Memory, ReadOnly: true}}
}

// spawn starts the process and what watches it.
func (s *start) spawn(context.Context) (err error) {
	var open files
	defer open.close()
	l := launch{
		id: s.cfg.ID, exec: s.binaries.exec, jailer: s.d.opts.Jailer, base: s.d.jails.Dir(), root: s.jail.Path(""),
		netns: s.cfg.Jail.NetNS, uid: s.cfg.Jail.UID, gid: s.cfg.Jail.GID, maxFileSize: s.maxFileSize(),
	}
	if l.cgroup, err = open.add(s.group.Open()); err != nil {
		return err
	}
	if l.log, err = open.add(s.jail.OpenPipe(logName)); err != nil {
		return err
	}
	if s.cfg.Console {
		if l.console, err = open.add(s.jail.OpenPipe(consoleName)); err != nil {
			return err
		}
	}
	logs, err := openSinks(s.jail, s.cfg.Console)
	if err != nil {
		return err
	}
	c, err := s.d.launch(l)
	if err != nil {
		logs.close()
		return fmt.Errorf("%w: %w", err, errs.ErrUnavailable)
	}
	s.m = newMachine(s.d, s.jail, s.group, c, logs)
	s.cu.Add("end the process", func(ctx context.Context) error {
		return errors.Join(s.m.Kill(ctx), s.m.Close())
	})
	return s.m.identify(s.cfg.ID, s.binaries.version)
}

// maxFileSize bounds the files that the process may write: enough for a snapshot of the memory, and for the disks that are
// files.
func (s *start) maxFileSize() int64 {
	const more = 64 << 20 // a snapshot's other parts
	size := int64(s.cfg.MemoryMiB)<<20 + more
	for _, d := range s.cfg.Drives {
		if st, err := os.Stat(d.Path); err == nil && !d.ReadOnly && st.Mode().IsRegular() {
			size = max(size, st.Size())
		}
	}
	return size
}

// await returns when the API answers connections. The kernel tells when the socket appears; between its appearance and the
// process listening on it there is one system call, for which there is no notice.
func (s *start) await(ctx context.Context) error {
	ctx, stop := s.m.whileAlive(ctx)
	defer stop()
	w, err := inotify.New(s.jail.Path("run"), inotify.Created)
	if err != nil {
		return err
	}
	defer w.Close()
	err = w.Until(ctx, func() (bool, error) {
		for {
			conn, err := s.jail.Dial(socketName, s.m.handle.PID)
			switch {
			case err == nil:
				return true, conn.Close()
			case errors.Is(err, errs.ErrNotFound):
				return false, nil
			case !errors.Is(err, unix.ECONNREFUSED) || ctx.Err() != nil:
				return false, err
			}
			time.Sleep(time.Millisecond)
		}
	})
	if err != nil {
		return fmt.Errorf("wait for the API socket: %w: %w", err, errs.ErrUnavailable)
	}
	// Until now the process may have been the jailer, which becomes Firecracker.
	s.m.handle.Executable, err = proc.Executable(s.m.handle.PID)
	return err
}

// configure tells Firecracker what the machine is made of.
func (s *start) configure(ctx context.Context) error {
	ctx, stop := s.m.whileAlive(ctx)
	defer stop()
	for _, r := range requests(&s.cfg, s.binaries.version.Features()) {
		if err := s.m.client.Put(ctx, r.path, r.body); err != nil {
			return err
		}
	}
	return nil
}

// boot starts the virtual CPUs.
func (s *start) boot(ctx context.Context) error {
	ctx, stop := s.m.whileAlive(ctx)
	defer stop()
	return s.m.client.Put(ctx, api.PathActions, api.Action{ActionType: api.InstanceStart})
}

// load makes the process the frozen machine. A load that fails ends the process: there is nothing to try again.
func (s *start) load(ctx context.Context) error {
	ctx, stop := s.m.whileAlive(ctx)
	defer stop()
	return s.m.client.Put(ctx, api.PathSnapshotLoad, loadRequest(&s.cfg, s.binaries.version.Features()))
}

// fill gives the loaded machine its metadata: that it has the service is part of what was frozen, the document is not.
func (s *start) fill(ctx context.Context) error {
	if s.cfg.Metadata == nil {
		return nil
	}
	ctx, stop := s.m.whileAlive(ctx)
	defer stop()
	return s.m.client.Put(ctx, api.PathMMDS, s.cfg.Metadata)
}

// resume lets the virtual CPUs of a loaded machine go on.
func (s *start) resume(ctx context.Context) error { return s.m.Resume(ctx) }

// settle is how long a start that failed for want of an answer waits for the end of the process, which explains more.
const settle = 2 * time.Second

// explain adds to a start's error how the process ended and what it said last. A refusal explains itself.
func (s *start) explain(ctx context.Context, err error) error {
	if s.m == nil || errors.Is(err, failpoint.ErrInjected) || !errors.Is(err, errs.ErrUnavailable) {
		return err
	}
	if ctx.Err() == nil {
		select {
		case <-s.m.Done():
		case <-time.After(settle):
		case <-ctx.Done():
		}
	}
	log, _ := s.m.ConsoleTail(sink.Capacity)
	select {
	case <-s.m.Done():
		err = fmt.Errorf("%w; %s", err, s.m.Exit().Detail)
	default:
	}
	if last := lastWords(log); last != "" {
		err = fmt.Errorf("%w; its log ends with: %s", err, last)
	}
	return err
}

// files are open files that are closed together.
type files []*os.File

func (f *files) add(file *os.File, err error) (*os.File, error) {
	if err == nil {
		*f = append(*f, file)
	}
	return file, err
}

// close is called by a defer that comes before the files: they are open, and kept from the garbage collector, until then.
func (f *files) close() {
	for _, file := range *f {
		file.Close()
	}
}
