package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/api"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
	"wrenn.dev/wrenn/internal/vmm/firecracker/printable"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
	"wrenn.dev/wrenn/internal/vmm/firecracker/sink"
)

// machine is one Firecracker process, started or recovered.
type machine struct {
	d       *Driver
	jail    *jail.Jail
	group   group
	child   *child // child.wait is nil for a recovered machine
	client  *api.Client
	logs    sinks
	handle  vmm.Handle
	timings []vmm.Step

	done      chan struct{}
	exit      vmm.Exit // valid once done is closed
	closed    chan struct{}
	closeOnce sync.Once
}

// newMachine watches a process from then on.
func newMachine(d *Driver, j *jail.Jail, g group, c *child, logs sinks) *machine {
	m := &machine{d: d, jail: j, group: g, child: c, logs: logs, done: make(chan struct{}), closed: make(chan struct{})}
	m.handle.PID = c.process.PID
	m.client = api.New(func(context.Context) (net.Conn, error) { return j.Dial(socketName, c.process.PID) })
	go m.watch()
	return m
}

// watch waits for the end of the process and says why it came. Of a child it always waits for the end, because nobody else
// would collect it; Close only ends it for a recovered machine.
func (m *machine) watch() {
	if m.child.process.Wait() != nil {
		return // closed
	}
	m.exit = exitOf(m.outcome())
	m.logs.close()
	close(m.done)
	if m.child.wait != nil {
		_ = m.child.process.Close()
	}
}

// outcome asks everybody who knows how the process ended.
func (m *machine) outcome() outcome {
	o := outcome{killed: m.jail.Killed(), oom: m.group.OOMKilled()}
	if m.child.wait == nil {
		o.status, o.known = m.child.process.Status()
		return o
	}
	if state, _ := m.child.wait(); state != nil {
		o.status, o.known = waitStatus(state)
	}
	return o
}

// identify fills the handle while the process is known to be the one that was started.
func (m *machine) identify(id string, v release.Version) error {
	boot, err := proc.BootID()
	if err != nil {
		return err
	}
	began, err := proc.StartTime(m.handle.PID)
	if err != nil {
		return fmt.Errorf("the process ended at once: %w: %w", err, errs.ErrUnavailable)
	}
	m.handle = vmm.Handle{Version: vmm.HandleVersion, ID: id, PID: m.handle.PID, StartTime: began, BootID: boot,
		Driver: fmt.Sprintf("%s %v", Name, v)}
	return nil
}

// Handle is what Recover needs.
func (m *machine) Handle() vmm.Handle { return m.handle }

// Done is closed as soon as the process is gone.
func (m *machine) Done() <-chan struct{} { return m.done }

// Exit says how it ended.
func (m *machine) Exit() vmm.Exit { return m.exit }

// Timings are the steps of the start.
func (m *machine) Timings() []vmm.Step { return m.timings }

// PatchMetadata merges doc into the metadata document.
func (m *machine) PatchMetadata(ctx context.Context, doc map[string]any) error {
	ctx, stop := m.whileAlive(ctx)
	defer stop()
	return m.client.Patch(ctx, api.PathMMDS, doc)
}

// Kill ends the process and returns when it is gone.
func (m *machine) Kill(ctx context.Context) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if err := m.d.end(ctx, m.handle.ID); err != nil {
		return err
	}
	select { // it is gone; wait until Exit can say why
	case <-m.done:
		return nil
	case <-m.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the exit status of process %d: %w", m.handle.PID, context.Cause(ctx))
	}
}

// ConsoleTail returns the ends of the VMM's log and of the guest's console.
func (m *machine) ConsoleTail(limit int) (vmmLog, console string) {
	vmmLog = printable.Tail(m.logs.log.Tail(), limit)
	if m.logs.console != nil {
		console = printable.Tail(m.logs.console.Tail(), limit)
	}
	return vmmLog, console
}

// Close gives up the logs and, for a recovered machine, the watch. A started machine's process is a child of ours and is
// still collected when it ends.
func (m *machine) Close() error {
	var err error
	m.closeOnce.Do(func() {
		close(m.closed)
		m.logs.close()
		err = m.jail.Close()
		if m.child.wait == nil {
			err = errors.Join(err, m.child.process.Close())
		}
	})
	return err
}

// errEnded is the cause of a context that ended with the process.
var errEnded = errors.New("the machine ended")

// whileAlive is a context that also ends with the process.
func (m *machine) whileAlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-m.done:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// sinks keep the ends of what the process writes.
type sinks struct{ log, console *sink.Sink }

// openSinks starts to read the pipes of a jail.
func openSinks(j *jail.Jail, console bool) (s sinks, err error) {
	f, err := j.OpenPipe(logName)
	if err != nil {
		return s, err
	}
	s.log = sink.New(f)
	if !console {
		return s, nil
	}
	if f, err = j.OpenPipe(consoleName); err != nil {
		s.close()
		return s, err
	}
	s.console = sink.New(f)
	return s, nil
}

func (s sinks) close() {
	s.log.Close()
	if s.console != nil {
		s.console.Close()
	}
}
