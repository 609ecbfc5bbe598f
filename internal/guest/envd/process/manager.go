package process

import (
	"slices"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// Selector names a process by its pid, or by its tag if that is not nil: then the one that was started last counts.
type Selector struct {
	PID int
	Tag *string
}

// missing is the error for a selector that finds nothing.
func (s Selector) missing() error {
	if s.Tag != nil {
		return fault.New(errs.ErrNotFound, "process with tag '%.100s' not found", *s.Tag)
	}
	return fault.New(errs.ErrNotFound, "process with pid %d not found", s.PID)
}

func (s Selector) match(pid int, tag *string) bool {
	if s.Tag == nil {
		return pid == s.PID
	}
	return tag != nil && *tag == *s.Tag
}

// Manager keeps the processes of a guest. Its methods may be called from several goroutines.
type Manager struct {
	limits Limits
	wg     sync.WaitGroup // the goroutines that wait for processes

	mu      sync.Mutex
	closed  bool
	places  int        // taken: running processes, and those that are being started
	running []*Process // in the order of their start
	ended   []record   // in the order of their end
}

// record is what is remembered of an ended process.
type record struct {
	pid  int
	tag  *string
	exit Exit
	at   time.Time
}

// NewManager returns a manager without processes.
func NewManager(limits Limits) *Manager { return &Manager{limits: limits} }

// Start runs a command and returns a subscription that misses nothing of its output. ErrInvalid with the reason when the
// command can't be run, ErrResourceExhausted when too many run, ErrUnavailable after Close.
func (m *Manager) Start(spec Spec) (*Subscription, error) {
	if err := spec.validate(m.limits); err != nil {
		return nil, err
	}
	if err := m.takePlace(); err != nil {
		return nil, err
	}
	p, err := launch(spec, m.limits)
	if err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.places--
		m.wg.Done()
		return nil, err
	}
	sub, err := p.hub.subscribe()
	m.mu.Lock()
	m.running = append(m.running, p)
	m.mu.Unlock()
	if err != nil || m.isClosed() {
		p.kill()
	}
	go m.watch(p)
	return sub, err
}

func (m *Manager) takePlace() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return fault.New(errs.ErrUnavailable, "envd is ending")
	case m.places >= m.limits.Processes:
		return fault.New(errs.ErrResourceExhausted, "%d processes run already", m.places)
	}
	m.places++
	m.wg.Add(1)
	return nil
}

func (m *Manager) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// watch waits for a process and files its end. The record is there before the subscriptions end, so that who joins late
// finds one or the other.
func (m *Manager) watch(p *Process) {
	defer m.wg.Done()
	exit := p.wait()
	m.mu.Lock()
	m.places--
	m.running = slices.DeleteFunc(m.running, func(other *Process) bool { return other == p })
	m.ended = append(m.ended, record{pid: p.pid, tag: p.spec.Tag, exit: exit, at: time.Now()})
	m.forget()
	m.mu.Unlock()
	p.hub.finish(exit)
}

// forget drops the records that are too old or too many.
// Preconditions: mu is held.
func (m *Manager) forget() {
	n := max(0, len(m.ended)-m.limits.Ended)
	for n < len(m.ended) && time.Since(m.ended[n].at) > m.limits.Retain {
		n++
	}
	m.ended = slices.Delete(m.ended, 0, n)
}

// List returns the running processes in the order of their start.
func (m *Manager) List() []*Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.running)
}

// Get returns a running process. ErrNotFound when there is none.
func (m *Manager) Get(sel Selector) (*Process, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range slices.Backward(m.running) {
		if sel.match(p.pid, p.spec.Tag) {
			return p, nil
		}
	}
	return nil, sel.missing()
}

// Join follows a process that runs, from now on, or one that ended a short while ago. ErrNotFound when there is neither,
// ErrResourceExhausted when too many follow it.
func (m *Manager) Join(sel Selector) (*Subscription, error) {
	p, err := m.Get(sel)
	if err == nil {
		return p.hub.subscribe()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget()
	for _, r := range slices.Backward(m.ended) {
		if sel.match(r.pid, r.tag) {
			return ended(r.pid, r.exit), nil
		}
	}
	return nil, err
}

// Close kills every process, waits for all of them, and lets none start.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	for _, p := range m.running {
		p.kill()
	}
	m.mu.Unlock()
	m.wg.Wait()
}
