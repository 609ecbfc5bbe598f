package envd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

const (
	// tokenPatience is how long the token may be missing from the metadata.
	tokenPatience = time.Minute
	// tokenPause is how long to wait before looking again for a token that is not there.
	tokenPause = 50 * time.Millisecond
	// bootPause is how long envd waits, after it could not wake by itself, before it tries again.
	bootPause = 250 * time.Millisecond
	// startTime is how long a command that is being started may hold up a freeze.
	startTime = 10 * time.Second
)

// waker takes the identity from the metadata, and makes the machine distinct before the gate opens if it is a clone. It does so
// once at a time: who asks meanwhile gets the same answer.
type waker struct {
	source   Source
	machine  Machine
	patience time.Duration
	log      *slog.Logger
	gate     *gate
	conns    *conns
	env      atomic.Pointer[map[string]string]

	life context.Context // ends with the server
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	flight *flight // the one that is under way
	awake  bool    // it succeeded once

	// last is the start that was applied last: at first, that of the first document seen, which is the one that the machine
	// booted with. nil before. Used by the flight alone.
	last *string
}

// flight is one attempt to wake.
type flight struct {
	done   chan struct{}
	report *wakeReport // these two are written before done is closed
	err    error
	asking []net.Conn // the connections of those who wait for it, one each; under the waker's mu
}

// wakeReport is the answer to a wake.
type wakeReport struct {
	Start string `json:"start"`
	// Reseeded says that this was another start than the one before, and the machine was made distinct.
	Reseeded      bool       `json:"reseeded"`
	ClockOffsetMs float64    `json:"clockOffsetMs"`
	Steps         []wakeStep `json:"steps"`
}

type wakeStep struct {
	Name string  `json:"name"`
	Ms   float64 `json:"ms"`
	Note string  `json:"note,omitempty"`
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func newWaker(cfg Config, gate *gate, conns *conns) *waker {
	w := &waker{source: cfg.Source, machine: cfg.Machine, patience: cfg.TokenPatience, log: cfg.Log, gate: gate, conns: conns}
	w.life, w.end = context.WithCancel(context.Background())
	if w.machine == nil {
		w.machine = fixed{errors.New("nobody follows its kernel's log")}
	}
	if w.patience == 0 {
		w.patience = tokenPatience
	}
	return w
}

// stop ends what is under way, and lets nothing begin.
func (w *waker) stop() {
	w.mu.Lock()
	w.end()
	w.mu.Unlock()
	w.wg.Wait()
}

// boot wakes as soon as there is a token, which may be long after envd's start.
func (w *waker) boot(ctx context.Context) {
	for !w.wasAwake() {
		if _, err := w.wake(ctx, nil); err != nil && ctx.Err() == nil {
			w.log.Warn("no identity yet, so every call is refused", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(bootPause):
		}
	}
}

func (w *waker) wasAwake() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.awake
}

// wake returns when the sandbox is awake. What it starts goes on when ctx ends. conn is the connection that asks, if one does; it
// survives.
func (w *waker) wake(ctx context.Context, conn net.Conn) (*wakeReport, error) {
	f, err := w.join(conn)
	if err != nil {
		return nil, err
	}
	defer w.leave(f, conn)
	select {
	case <-f.done:
		return f.report, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// join begins a flight, or joins the one that is under way.
func (w *waker) join(conn net.Conn) (*flight, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.life.Err() != nil {
		return nil, fault.New(errs.ErrUnavailable, "envd is ending")
	}
	if w.flight == nil {
		w.flight = &flight{done: make(chan struct{})}
		w.wg.Add(1)
		go w.fly(w.flight)
	}
	w.flight.asking = append(w.flight.asking, conn)
	return w.flight, nil
}

func (w *waker) leave(f *flight, conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(f.asking, conn); i >= 0 {
		f.asking = slices.Delete(f.asking, i, i+1)
	}
}

func (w *waker) fly(f *flight) {
	defer w.wg.Done()
	f.report, f.err = w.once(w.life, f)
	w.mu.Lock()
	w.flight = nil
	w.awake = w.awake || f.err == nil
	w.mu.Unlock()
	close(f.done)
}

// once waits for a token and applies what comes with it. If the gate was closed meanwhile the token is from before a freeze, and
// the next one counts.
func (w *waker) once(ctx context.Context, f *flight) (*wakeReport, error) {
	fetch, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	began := time.Now()
	for {
		count := w.gate.count()
		id, err := w.identity(fetch)
		if err != nil {
			return nil, err
		}
		report := &wakeReport{Start: id.Start, Steps: []wakeStep{{Name: "metadata", Ms: milliseconds(time.Since(began))}}}
		if id.Start != *w.last {
			return report, w.distinguish(ctx, f, id, report)
		}
		w.tell(id)
		if w.gate.open(count, id.Token) {
			return report, nil
		}
	}
}

// identity returns the identity once it has a token.
func (w *waker) identity(ctx context.Context) (Identity, error) {
	for tokenless := false; ; tokenless = true {
		id, err := w.source.Identity(ctx)
		if err != nil && tokenless {
			return id, fmt.Errorf("no token in the metadata within %v: %w: %w", w.patience, err, errs.ErrUnavailable)
		}
		if err != nil {
			return id, fmt.Errorf("no metadata within %v: %w: %w", w.patience, err, errs.ErrUnavailable)
		}
		if w.last == nil {
			w.remember(id)
		}
		if id.Token != "" {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return id, fmt.Errorf("no token in the metadata within %v: %w: %w", w.patience, context.Cause(ctx), errs.ErrUnavailable)
		case <-time.After(tokenPause):
		}
	}
}

// distinguish makes a clone distinct, and only then opens the gate. The gate may be open still, if nobody closed it before the
// freeze: the token that it knows is another machine's.
func (w *waker) distinguish(ctx context.Context, f *flight, id Identity, report *wakeReport) error {
	count, _ := w.gate.close()
	made, err := w.machine.Distinguish(ctx, clone.Identity{Start: id.Start, Hostname: id.Hostname})
	if err != nil {
		return fmt.Errorf("the clone is not distinct: %w", err)
	}
	report.Reseeded, report.ClockOffsetMs = true, milliseconds(made.Offset)
	for _, s := range made.Steps {
		report.Steps = append(report.Steps, wakeStep{Name: s.Name, Ms: milliseconds(s.Took), Note: s.Note})
	}
	w.tell(id)
	began := time.Now()
	w.conns.cut(func(c net.Conn) bool { return w.asks(f, c) })
	report.Steps = append(report.Steps, wakeStep{Name: "connections", Ms: milliseconds(time.Since(began))})
	if !w.gate.open(count, id.Token) {
		return fmt.Errorf("the gate was closed while the clone was made distinct: %w", errs.ErrUnavailable)
	}
	w.remember(id)
	return nil
}

// remember keeps which start the machine is distinct for; of the rest of the identity, nothing: it holds the token.
func (w *waker) remember(id Identity) {
	start := id.Start
	w.last = &start
}

// asks says whether a connection waits for the flight.
func (w *waker) asks(f *flight, c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(f.asking, c)
}

// tell sets what processes that start from now on find in their environment.
func (w *waker) tell(id Identity) {
	env := id.env()
	w.env.Store(&env)
	w.log.Info("ready", "sandbox", id.SandboxID, "template", id.TemplateID)
}

// base is what every process finds in its environment.
// Preconditions: the gate was open once.
func (w *waker) base() map[string]string { return *w.env.Load() }

// connKey is the key under which a request's context has its connection.
type connKey struct{}

// serve answers POST /wake. Nothing is read of the request's body.
func (w *waker) serve(rw http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	report, err := w.wake(r.Context(), conn)
	if err != nil {
		writeError(rw, http.StatusServiceUnavailable, err.Error())
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(report) // fails when the client is gone
}

// quiesce answers POST /quiesce, behind the gate.
func (w *waker) quiesce(rw http.ResponseWriter, r *http.Request) {
	if err := w.machine.Freeze(); err != nil {
		writeError(rw, http.StatusServiceUnavailable, err.Error())
		return
	}
	_, idle := w.gate.close()
	ctx, cancel := context.WithTimeoutCause(r.Context(), startTime, errors.New("a command is being started"))
	defer cancel()
	select {
	case <-idle:
		rw.WriteHeader(http.StatusNoContent)
	case <-ctx.Done():
		writeError(rw, http.StatusServiceUnavailable, fmt.Sprintf("the sandbox can't be frozen yet: %v", context.Cause(ctx)))
	}
}
