package hostagent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Expiry is what becomes of a sandbox that was idle for its TTL.
type Expiry string

// The ways of expiry.
const (
	ExpiryDestroy Expiry = "destroy"
	ExpiryPause   Expiry = "pause"
)

// note is what the agent keeps in a sandbox's record.
type note struct {
	TTL      time.Duration     `json:"ttl,omitempty"`
	OnExpiry Expiry            `json:"on_expiry,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Key      string            `json:"key,omitempty"` // the name of the idempotency key that it was made with
}

func (n note) encode() json.RawMessage {
	data, err := json.Marshal(n)
	if err != nil {
		panic("hostagent: a note of strings and numbers: " + err.Error())
	}
	return data
}

// noteOf reads a record's note. One that is not ours, of a sandbox that no agent made, is empty.
func noteOf(r sandbox.Record) note {
	var n note
	if json.Unmarshal(r.Note, &n) != nil {
		return note{}
	}
	return n
}

// box is what the agent has in memory of one sandbox.
type box struct {
	id      string
	line    chan struct{} // holds a token while an operation is under way; who waits does so in order
	waiting atomic.Int32
	expire  func(*box) // called when it was idle for its TTL

	mu       sync.Mutex
	sb       *sandbox.Sandbox // nil unless it runs and is in the agent's hands
	guest    Guest
	live     context.Context // of sb: ends, with the reason, when it runs no more
	end      context.CancelCauseFunc
	traffic  context.Context // of the connections to ports: part of live
	cut      context.CancelCauseFunc
	note     note
	active   [kinds]int // streams and connections that are open
	since    time.Time  // when the last activity ended
	timer    *time.Timer
	commands map[uint32][]*command // the streams that give each process input
	quiet    chan struct{}         // closed when the guest takes calls again; nil while it does
}

func newBox(id string, expire func(*box)) *box {
	return &box{id: id, line: make(chan struct{}, 1), expire: expire, commands: map[uint32][]*command{}}
}

// enter waits in line until the operations that came before are done.
func (b *box) enter(ctx, life context.Context) error {
	if b.waiting.Add(1) > maxWaiting {
		b.waiting.Add(-1)
		return fmt.Errorf("%d operations wait for it already: %w", maxWaiting, errs.ErrResourceExhausted)
	}
	defer b.waiting.Add(-1)
	select {
	case b.line <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the caller left while it waited in line: %w", context.Cause(ctx))
	case <-life.Done():
		return context.Cause(life)
	}
}

func (b *box) leave() { <-b.line }

// hold takes a running sandbox. What it returns ends with it, and can be ended.
func (b *box) hold(sb *sandbox.Sandbox, guest Guest, n note) (context.Context, context.CancelCauseFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sb, b.guest, b.note = sb, guest, n
	b.live, b.end = context.WithCancelCause(context.Background())
	b.traffic, b.cut = context.WithCancelCause(b.live)
	b.since = time.Now()
	b.arm()
	return b.live, b.end
}

// drop gives the sandbox up and ends what is open on it, for a reason. It returns what was held, nil for nothing.
func (b *box) drop(why error) *sandbox.Sandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb := b.sb
	if sb != nil {
		b.end(why)
		b.guest.Close()
		b.sb, b.guest = nil, nil
	}
	b.disarm()
	return sb
}

// held is the running sandbox, nil for none.
func (b *box) held() *sandbox.Sandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sb
}

// arm sets the timer to the time at which the sandbox will have been idle for its TTL.
//
// Preconditions: b.mu is held.
func (b *box) arm() {
	b.disarm()
	if b.sb == nil || b.busy() || b.note.TTL == 0 {
		return
	}
	b.timer = time.AfterFunc(time.Until(b.since.Add(b.note.TTL)), func() { b.expire(b) })
}

func (b *box) disarm() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer = nil
}

// later calls expire after a time, whatever the TTL.
func (b *box) later(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disarm()
	b.timer = time.AfterFunc(d, func() { b.expire(b) })
}

// idle says whether the sandbox runs, and whether it has been idle for its TTL. One that has not has its timer set again.
func (b *box) idle() (running, idle bool, n note) {
	b.mu.Lock()
	defer b.mu.Unlock()
	idle = !b.busy() && b.note.TTL > 0 && time.Since(b.since) >= b.note.TTL
	if b.sb != nil && !idle {
		b.arm()
	}
	return b.sb != nil, idle, b.note
}

// expiresAt is when it will have been idle for its TTL; zero when it won't.
func (b *box) expiresAt() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sb == nil || b.busy() || b.note.TTL == 0 {
		return time.Time{}
	}
	return b.since.Add(b.note.TTL)
}

// hush says that the guest takes no calls, because its sandbox is being frozen, until the returned function is called.
func (b *box) hush() (over func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	quiet := make(chan struct{})
	b.quiet = quiet
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.quiet = nil
		close(quiet)
	})
}

// heard waits until the guest takes calls.
func (b *box) heard(ctx context.Context) error {
	for {
		b.mu.Lock()
		quiet := b.quiet
		b.mu.Unlock()
		if quiet == nil {
			return nil
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// use is one activity on a running sandbox.
type use struct {
	sb    *sandbox.Sandbox
	guest Guest
	live  context.Context
	// traffic is live for a connection to a port.
	traffic context.Context
	done    func()
}

// kind is what is open on a sandbox.
type kind int

const (
	stream     kind = iota // of a command, or a file
	connection             // to one of its ports
	kinds
)

// most bounds how many of a kind are open on one sandbox: neither takes the other's place.
var most = [kinds]int{stream: 256, connection: 512}

// String implements fmt.Stringer.
func (k kind) String() string { return [kinds]string{"streams", "connections to ports"}[k] }

// busy says whether anything is open.
//
// Preconditions: b.mu is held.
func (b *box) busy() bool { return b.active != [kinds]int{} }

// begin counts an activity until its done is called. ErrFailedPrecondition when the sandbox does not run here.
func (b *box) begin(k kind) (use, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sb == nil {
		return use{}, fmt.Errorf("sandbox %s does not run: %w", b.id, errs.ErrFailedPrecondition)
	}
	if err := context.Cause(b.live); err != nil {
		return use{}, err
	}
	if b.active[k] >= most[k] {
		return use{}, fmt.Errorf("%d %s are open on sandbox %s: %w", b.active[k], k, b.id, errs.ErrResourceExhausted)
	}
	b.active[k]++
	b.disarm()
	var once sync.Once
	return use{b.sb, b.guest, b.live, b.traffic, func() {
		once.Do(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.active[k]--
			b.since = time.Now()
			if !b.busy() && b.sb != nil {
				b.arm()
			}
		})
	}}, nil
}

// cutTraffic resets the connections to the sandbox's ports, for a reason.
func (b *box) cutTraffic(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sb != nil {
		b.cut(why)
		b.traffic, b.cut = context.WithCancelCause(b.live)
	}
}

// ended is a reason to drop a sandbox, and the error of the calls on it that this ends.
func ended(id, how string) error {
	return fmt.Errorf("sandbox %s was %s: %w", id, how, errs.ErrUnavailable)
}
