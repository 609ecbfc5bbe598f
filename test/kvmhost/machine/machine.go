package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/build/debian"
)

// Patience with QEMU itself. It is long: the machine that it runs on may be busy.
const (
	startPatience = time.Minute
	stopPatience  = 5 * time.Second
	// outputPatience is for the rest of its output, once it has ended.
	outputPatience = time.Second
)

// Lost is the error of a machine that ended without being asked to: its kernel died, it hung, or QEMU was killed.
type Lost struct {
	Reason    string
	Log       string // the end of its console
	Registers string // the CPU's state, when it hung
}

// Error is the reason; Report has the rest.
func (l *Lost) Error() string { return "the emulated machine was lost: " + l.Reason }

// Report is all that is known, on many lines.
func (l *Lost) Report() string {
	s := l.Error() + "\n---- the end of its console:\n" + l.Log + "\n"
	if l.Registers != "" {
		s += "---- its CPU:\n" + l.Registers
	}
	return s + "----\n"
}

// Machine is a running emulated machine.
type Machine struct {
	cmd     *exec.Cmd
	console *tail
	monitor *monitor
	control net.Conn
	cancel  context.CancelFunc // ends the watch

	alive  chan struct{} // closed at the first sign of life
	exited chan struct{} // closed when QEMU has ended
	done   chan struct{} // closed when lost is final

	exit error // what QEMU ended with, valid once exited is closed
	lost *Lost // why the machine ended, valid once done is closed; nil when it was stopped

	mu      sync.Mutex
	stopped bool // Stop was called: the end is no loss
}

// Start starts a machine and returns once QEMU has opened all files of c, which may then be removed. Until Ready says so
// nothing runs inside yet. The caller must Stop the machine.
func Start(ctx context.Context, c Config) (*Machine, error) {
	cmd, err := debian.Command(context.WithoutCancel(ctx), c.Tools, "qemu-system-x86_64", c.args()...)
	if err != nil {
		return nil, err
	}
	m := &Machine{cmd: cmd, console: &tail{}, alive: make(chan struct{}), exited: make(chan struct{}), done: make(chan struct{})}
	conns, err := m.connect(heartbeatFD, controlFD, monitorFD)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+c.Temp)
	cmd.Stdout, cmd.Stderr = m.console, m.console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = outputPatience
	if err := m.launch(); err != nil {
		closeAll(conns)
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	heartbeat, control, qmp := conns[0], conns[1], conns[2]
	stop := context.AfterFunc(ctx, m.kill)
	defer stop()
	m.control = control
	m.monitor, err = newMonitor(qmp, startPatience)
	watchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	go m.supervise(watchCtx, heartbeat, conns)
	if err != nil {
		_ = m.Stop()
		return nil, fmt.Errorf("QEMU did not start: %w; it said:\n%s", errors.Join(ctx.Err(), err), m.console)
	}
	return m, nil
}

// connect makes a socket pair for each of QEMU's inherited descriptors, in order, and returns this side's ends.
func (m *Machine) connect(fds ...int) ([]net.Conn, error) {
	var conns []net.Conn
	for range fds {
		here, there, err := socketPair()
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, here)
		m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, there)
	}
	return conns, nil
}

// launch starts QEMU on a thread that lives as long as QEMU does: the kernel kills QEMU when the thread that started it ends,
// which then happens with this process and no sooner.
func (m *Machine) launch() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := m.cmd.Start()
		for _, f := range m.cmd.ExtraFiles {
			_ = f.Close()
		}
		started <- err
		if err == nil {
			m.exit = m.cmd.Wait()
			close(m.exited)
		}
	}()
	return <-started
}

// supervise watches the machine until QEMU has ended, and notes why it has.
func (m *Machine) supervise(ctx context.Context, heartbeat io.ReadWriter, conns []net.Conn) {
	defer close(m.done)
	defer closeAll(conns)
	defer m.cancel()
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	watched := make(chan error, 1)
	go func() { watched <- watch(ctx, heartbeat, ticker.C, func() { close(m.alive) }) }()
	select {
	case <-m.exited:
	case err := <-watched:
		if err != nil {
			m.lost = m.hung(err)
			m.kill()
		}
		<-m.exited
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost == nil && !m.stopped {
		m.lost = &Lost{Reason: m.endReason(), Log: m.console.String()}
	}
}

// hung is the loss of a machine that gives no sign of life.
func (m *Machine) hung(err error) *Lost {
	registers, monErr := m.monitor.registers(stopPatience)
	if monErr != nil {
		registers = fmt.Sprintf("QEMU's monitor does not answer either: %v\n", monErr)
	}
	return &Lost{Reason: err.Error(), Log: m.console.String(), Registers: registers}
}

func (m *Machine) endReason() string {
	if m.exit != nil {
		return "QEMU ended: " + m.exit.Error()
	}
	return "it ended by itself: its kernel died, or it was switched off from inside"
}

// Ready returns when the agent inside runs, or why that will not be.
func (m *Machine) Ready(ctx context.Context) error {
	select {
	case <-m.alive:
		return nil
	case <-m.done:
		return m.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Control is the stream to the agent's server of commands.
func (m *Machine) Control() net.Conn { return m.control }

// Pid is QEMU's process id.
func (m *Machine) Pid() int { return m.cmd.Process.Pid }

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err says why the machine has ended: a *Lost, or nil when it was stopped or still runs.
func (m *Machine) Err() error {
	select {
	case <-m.done:
		if m.lost != nil {
			return m.lost
		}
	default:
	}
	return nil
}

// Console is the end of what came out of the machine's console.
func (m *Machine) Console() string { return m.console.String() }

// Stop ends the machine as if its plug was pulled, and returns when nothing of it is left. It may be called more than once.
func (m *Machine) Stop() error {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.kill()
	select {
	case <-m.done:
		return nil
	case <-time.After(startPatience):
		return fmt.Errorf("QEMU, process %d, does not end", m.Pid())
	}
}

// kill ends QEMU. It has nothing to finish: its disks are thrown away.
func (m *Machine) kill() { _ = m.cmd.Process.Kill() }

func socketPair() (here net.Conn, there *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "socket pair")
	defer f.Close()
	there = os.NewFile(uintptr(fds[1]), "socket pair")
	if here, err = net.FileConn(f); err != nil {
		_ = there.Close()
		return nil, nil, err
	}
	return here, there, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}
