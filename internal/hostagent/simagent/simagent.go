// Package simagent is a host that is not there: it answers hostagent.v1 as an agent does, and its sandboxes are a few hundred bytes of memory each.
// Thousands of hosts with hundreds of sandboxes fit into one process, for what a control plane must bear.
//
//	h := simagent.New(simagent.Config{})
//	err := rpc.Serve(ctx, h.Handler(), time.Second, listener)
//
// What an agent promises of life cycles, errors, idempotency keys, events, lists and snapshots it keeps: hostagenttest holds both to it. There are no
// guests: the calls of processes and files are not implemented, and a sandbox is idle from its start. Nothing outlives the process.
package simagent

import (
	"cmp"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/events"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/wire"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
	"wrenn.dev/wrenn/proto/hostagent/v1/hostagentpbconnect"
)

// Config says what a host is like.
type Config struct {
	// Template is the only one; empty is "base".
	Template string
	// Limits are what sandboxes may take together; zero is no limit.
	Limits quota.Amount
	// Latency is how long an operation takes, by its name ("create", "pause", …); nil takes no time.
	Latency func(operation string) time.Duration
}

// What a sandbox has unless it asks for something else.
const (
	defaultVCPUs     = 1
	defaultMemoryMiB = 256
	defaultDiskBytes = 2 << 30
	// minMemoryMiB is what no machine starts with less than.
	minMemoryMiB = 64
	maxChanges   = 20
	// keptEvents and keptAnswers bound what a host remembers.
	keptEvents  = 256
	keptAnswers = 1024
)

// Host is one. Its methods may be called from several goroutines.
type Host struct {
	cfg     Config
	started time.Time
	ledger  *quota.Ledger
	events  *events.Log[change]
	answers answers

	mu        sync.Mutex
	boxes     map[string]*box
	snapshots map[string]*snapshot
	// bare says that its template was deleted.
	bare atomic.Bool
}

// change is one of a sandbox.
type change struct {
	sandbox string
	what    *pb.Change
}

// box is a sandbox. Who changes it has its line.
type box struct {
	line sync.Mutex

	mu     sync.Mutex
	is     *pb.Sandbox // replaced, never changed: readers keep what they were given
	cpu    time.Time   // when its machine started
	expiry *time.Timer
	gone   bool
}

type snapshot struct {
	build string
	of    *pb.Sandbox
}

// New returns a host without sandboxes.
func New(c Config) *Host {
	c.Template = cmp.Or(c.Template, "base")
	return &Host{cfg: c, started: time.Now(), ledger: quota.New(c.Limits), events: events.New[change](keptEvents), boxes: map[string]*box{},
		snapshots: map[string]*snapshot{}, answers: answers{entries: map[string]*answer{}}}
}

// maxMessage bounds one request, as the agent's does.
const maxMessage = 2 << 20

// Handler is the host's calls.
func (h *Host) Handler() http.Handler {
	options := []connect.HandlerOption{connect.WithInterceptors(wire.Checked{}), connect.WithReadMaxBytes(maxMessage),
		connect.WithCompression("gzip", nil, nil)}
	mux := http.NewServeMux()
	mux.Handle(hostagentpbconnect.NewSandboxesServiceHandler(&sandboxes{h}, options...))
	mux.Handle(hostagentpbconnect.NewSnapshotsServiceHandler(&snapshots{h}, options...))
	mux.Handle(hostagentpbconnect.NewProcessesServiceHandler(hostagentpbconnect.UnimplementedProcessesServiceHandler{}, options...))
	mux.Handle(hostagentpbconnect.NewFilesServiceHandler(hostagentpbconnect.UnimplementedFilesServiceHandler{}, options...))
	mux.Handle(hostagentpbconnect.NewHostServiceHandler(&host{Host: h}, options...))
	return mux
}

// Add makes a sandbox that runs, without a call: for a host that has many to begin with. ErrAlreadyExists when there is one of that id.
func (h *Host) Add(id string) error {
	is, err := h.wanted(&pb.CreateRequest{Id: id, Template: h.cfg.Template})
	if err == nil {
		_, err = h.start(is, "it was there")
	}
	return err
}

// Fail ends a sandbox by itself, as a machine that dies. It says whether there was one that ran.
func (h *Host) Fail(id, reason string) bool {
	b, err := h.box(id)
	if err != nil {
		return false
	}
	b.line.Lock()
	defer b.line.Unlock()
	if b.state() != pb.State_STATE_RUNNING {
		return false
	}
	h.ledger.Set(id, quota.Amount{})
	h.turn(b, pb.State_STATE_FAILED, reason)
	return true
}

// Close stops what would still happen by itself.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.boxes {
		b.mu.Lock()
		b.disarm()
		b.gone = true
		b.mu.Unlock()
	}
}

// work takes as long as an operation does.
func (h *Host) work(operation string) {
	if h.cfg.Latency != nil {
		time.Sleep(h.cfg.Latency(operation))
	}
}

// box finds a sandbox.
func (h *Host) box(id string) (*box, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.boxes[id]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("sandbox %s: %w", id, errs.ErrNotFound)
}

// in takes a box's line and checks its state; done gives it back.
func (h *Host) in(id string, state pb.State) (b *box, done func(), err error) {
	if b, err = h.box(id); err != nil {
		return nil, nil, err
	}
	b.line.Lock()
	switch is := b.state(); {
	case b.ended():
		err = fmt.Errorf("sandbox %s: %w", id, errs.ErrNotFound)
	case is != state:
		err = fmt.Errorf("sandbox %s is %v: %w", id, is, errs.ErrFailedPrecondition)
	}
	if err != nil {
		b.line.Unlock()
		return nil, nil, err
	}
	return b, b.line.Unlock, nil
}

func (b *box) state() pb.State { return b.get().GetState() }

func (b *box) get() *pb.Sandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.is
}

func (b *box) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

// turn puts a sandbox into a state and tells of it.
//
// Preconditions: the caller has the box's line.
func (h *Host) turn(b *box, state pb.State, reason string) *pb.Sandbox {
	c := &pb.Change{State: state, Time: timestamppb.Now(), Reason: reason}
	b.mu.Lock()
	is := proto.CloneOf(b.is)
	is.State, is.Reason, is.Changes = state, reason, append(is.GetChanges(), c)
	if more := len(is.GetChanges()) - maxChanges; more > 0 {
		is.Changes = is.GetChanges()[more:]
	}
	b.disarm()
	is.ExpiresAt = nil
	if state == pb.State_STATE_RUNNING {
		b.cpu = c.GetTime().AsTime()
		h.arm(b, is)
	}
	b.is = is
	b.mu.Unlock()
	h.events.Add(change{is.GetId(), c})
	return is
}

// arm begins a sandbox's time to live.
//
// Preconditions: b.mu is held.
func (h *Host) arm(b *box, is *pb.Sandbox) {
	ttl := time.Duration(is.GetTtlSeconds()) * time.Second
	if ttl == 0 || b.gone {
		return
	}
	is.ExpiresAt = timestamppb.New(time.Now().Add(ttl))
	id := is.GetId()
	b.expiry = time.AfterFunc(ttl, func() { h.expire(id) })
}

// Preconditions: b.mu is held.
func (b *box) disarm() {
	if b.expiry != nil {
		b.expiry.Stop()
		b.expiry = nil
	}
}

// expire does what is to be done with a sandbox whose time has come, unless something has happened on it meanwhile.
func (h *Host) expire(id string) {
	b, done, err := h.in(id, pb.State_STATE_RUNNING)
	if err != nil {
		return
	}
	defer done()
	is := b.get()
	if is.GetExpiresAt() == nil || time.Now().Before(is.GetExpiresAt().AsTime()) {
		return
	}
	reason := fmt.Sprintf("it was idle for its TTL of %ds", is.GetTtlSeconds())
	if is.GetOnExpiry() == pb.Expiry_EXPIRY_PAUSE {
		h.pause(b, reason)
		return
	}
	h.destroy(b, reason)
}

// pause freezes a sandbox that runs.
//
// Preconditions: the caller has the box's line.
func (h *Host) pause(b *box, reason string) *pb.Sandbox {
	h.turn(b, pb.State_STATE_PAUSING, reason)
	h.work("pause")
	is := h.turn(b, pb.State_STATE_PAUSED, reason)
	h.ledger.Set(is.GetId(), promise(is).Asleep())
	return is
}

// destroy ends a sandbox in any state.
//
// Preconditions: the caller has the box's line.
func (h *Host) destroy(b *box, reason string) {
	h.turn(b, pb.State_STATE_STOPPING, reason)
	h.work("destroy")
	id := b.get().GetId()
	b.mu.Lock()
	b.gone = true
	b.mu.Unlock()
	h.mu.Lock()
	delete(h.boxes, id)
	h.mu.Unlock()
	h.ledger.Set(id, quota.Amount{})
	h.turn(b, pb.State_STATE_STOPPED, reason)
}

// promise is what a sandbox of such sizes may take.
func promise(is *pb.Sandbox) quota.Amount {
	memory := int64(is.GetMemoryMib())
	return quota.Amount{Sandboxes: 1, VCPUs: int(is.GetVcpus()), MemoryMiB: memory, DiskBytes: memory<<20 + int64(is.GetDiskBytes())}
}
