// Package sandbox is the host-side life cycle: it composes machine, disk, network and page-fault server into a sandbox, freezes
// it, starts it again, and takes it apart, whatever state it was left in.
//
//	sb, err := m.Create(ctx, spec, step)        // from a template's warm build, a named snapshot, or by a boot
//	_, err = sb.Snapshot(ctx, "name")           // frozen under a name; it runs on
//	clones, err := sb.Fork(ctx, 3)              // others that begin where it is now
//	_, err = sb.Pause(ctx, "idle")              // frozen, and nothing but a build is left of it
//	sb, err = m.Resume(ctx, id, step)           // it runs again
//	err = sb.Destroy(ctx, "done")
//
// Create from a template or snapshot, Resume and Fork are one operation: a build is started under an identity.
//
// Every sandbox has a folder with a record, written before the step that it tells of, and a lock that the process working
// on the sandbox holds. All host objects have names that follow from the sandbox's id or from a file that names it, so a
// process may be killed at any line: Sweep finds what has no living owner and removes exactly that.
package sandbox

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// Spec is what a caller asks for. Zero values take the template's.
type Spec struct {
	// Template is the name of a template, Snapshot that of a snapshot; one of the two. With a snapshot the sizes must be left
	// out, or be the snapshot's.
	Template, Snapshot string
	VCPUs              int
	MemoryMiB          int
	DiskBytes          int64
	Policy             network.Policy
	// Keep lets the sandbox outlive the process that made it: Sweep leaves it alone while its machine runs.
	Keep bool
	// Cold boots the machine although the template has a warm build. So do sizes other than the template's, and Console.
	Cold bool
	// Stream brings in the whole memory of a sandbox that began from a build when there is nothing else to do, instead of each page when
	// it is first touched: it is slow nowhere then, and its pager ends. It takes all of the memory on the host.
	Stream bool
	// Console connects the guest's serial port to the console log. It slows the boot.
	Console bool
	// ID is the id that the sandbox gets; empty is a new one.
	ID string
	// Note is kept with the sandbox's record, for whoever made it: JSON, or nothing. Clones of a fork have none.
	Note json.RawMessage
}

// Templates is where templates come from; *template.Store is one.
type Templates interface {
	// Get returns a template. ErrNotFound names the ones that there are.
	Get(name string) (template.Template, error)
	// Path is the host path of one of a template's files.
	Path(digest string) string
	// List returns the names of the templates, sorted.
	List() ([]string, error)
	// Own returns a template, be its files there or not, and those that no other template has. It fails as Get does.
	Own(name string) (template.Template, []template.Blob, error)
	// Delete removes a template and these of its files.
	Delete(ctx context.Context, name string, files []template.Blob) error
}

// DialFunc connects to a TCP port of the guest.
type DialFunc func(ctx context.Context, port int) (net.Conn, error)

// Guest speaks to a guest's envd.
type Guest interface {
	// Ready returns when envd answers with the token, in a guest that boots.
	Ready(ctx context.Context, dial DialFunc, token string) error
	// Quiesce makes envd forget the token: it refuses every call until Awake.
	Quiesce(ctx context.Context, dial DialFunc, token string) error
	// Awake returns when envd has taken the metadata and, in a machine that began from a frozen one, the guest is distinct from
	// every other: random pool, clock, names. Then envd answers with the token. The steps are what envd did.
	Awake(ctx context.Context, dial DialFunc, token string) ([]vmm.Step, error)
}

// Pagers starts page-fault servers; process.Starter says what the methods do.
type Pagers interface {
	Start(ctx context.Context, spec process.Spec) (Pager, error)
	Recover(ctx context.Context, sandbox string, h process.Handle) (Pager, error)
	Remove(ctx context.Context, sandbox string) error
	List(ctx context.Context) ([]string, error)
}

// Pager is one of them; *process.Process says what the methods do.
type Pager interface {
	Handle() process.Handle
	Socket() string
	Done() <-chan struct{}
	Left() bool
	LastWords() string
	// StopRecording ends the record of the working set and returns its file.
	StopRecording(ctx context.Context) (path string, err error)
	Close() error
}

// Config is what a Manager works with.
type Config struct {
	// StateDir holds one folder a sandbox, below "sandboxes", and the builds, below "builds".
	StateDir  string
	VMM       vmm.Driver
	Disk      disk.Freezer
	Network   network.Driver
	Pagers    Pagers
	Guest     Guest
	Templates Templates
	// Host says what of this host a frozen machine depends on.
	Host func(ctx context.Context) (manifest.Host, error)
	// UIDBase is the first of the uids that machines run under: slot n has UIDBase + n, and its pager UIDBase + Slots + n.
	UIDBase, Slots int
	// StartTimeout bounds one start, from its first step to the answer of envd.
	StartTimeout time.Duration
	// Boot returns the host's boot id; nil is proc.BootID.
	Boot func() (string, error)
	// Neighbours is a folder, gone with the kernel's next boot, in which those who share it tell of their state folders. Empty shares with nobody.
	Neighbours string
}

// DefaultUIDBase starts a range that neither distributions nor systemd give to anybody.
const DefaultUIDBase = 1_900_000_000

// vmmOverheadBytes is what a VMM may use beside its guest's memory: its own code and buffers, and the page cache of its drives.
const vmmOverheadBytes = 96 << 20

// pidsMax bounds the threads of a VMM: it has one a virtual CPU, a few of its own, and KVM adds some in its name.
const pidsMax = 64

// Sandbox is a running sandbox in the hands of the process that made it, resumed it or adopted it. Its methods are safe for use
// by several goroutines; those that change the sandbox wait for each other.
type Sandbox struct {
	ID      string
	Token   string // what envd asks of every call; never written to disk
	Machine vmm.Machine
	Steps   []vmm.Step // what the start took, in the order in which the steps ended

	manager *Manager
	pager   Pager         // nil for a machine that booted
	left    chan struct{} // closed when the sandbox was given up, paused or destroyed
	leave   sync.Once
	// pagerLost is closed before the machine is ended because its pager has.
	pagerLost chan struct{}
	over      chan struct{} // see Ended
	overOnce  sync.Once

	mu     sync.Mutex // held by the operation that changes the sandbox
	folder *folder    // nil once the sandbox was given up, paused or destroyed
	record *Record
}

// newSandbox is a sandbox in this process' hands.
func (m *Manager) newSandbox(f *folder, r *Record, token string) *Sandbox {
	return &Sandbox{ID: r.ID, Token: token, manager: m, folder: f, record: r,
		left: make(chan struct{}), pagerLost: make(chan struct{}), over: make(chan struct{})}
}

// Dial connects to a TCP port of the guest.
func (s *Sandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	return s.manager.cfg.Network.Dial(ctx, s.ID, port)
}

// Build is the generation that the sandbox began from or was last frozen as, "" for none.
func (s *Sandbox) Build() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.Build
}

// Destroy ends the sandbox and removes all it has on the host, and the builds that nothing else needs.
func (s *Sandbox) Destroy(ctx context.Context, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == nil {
		return s.gone()
	}
	_ = s.keepWorkingSet(ctx)
	s.close()
	if err := s.manager.takeApart(ctx, s.ID, s.folder, s.record, reason); err != nil {
		return err
	}
	s.folder = nil
	_ = s.manager.collect(ctx) // as in Manager.Destroy
	return nil
}

// Leave gives the sandbox up without ending it. It stays until Manager.Destroy; Sweep leaves it alone only if it was made
// with Spec.Keep.
func (s *Sandbox) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellEnd()
	s.close()
	if s.folder != nil {
		s.folder.release()
		s.folder = nil
	}
}

// close gives up what watching the processes costs.
func (s *Sandbox) close() {
	s.leave.Do(func() { close(s.left) })
	_ = s.Machine.Close()
	if s.pager != nil {
		_ = s.pager.Close()
	}
}

// Died says why the machine ended, with the end of its log and console. Valid once Machine.Done is closed.
func (s *Sandbox) Died() error {
	select {
	case <-s.pagerLost:
		return withConsole(pagerDied(s.pager.LastWords()), s.Machine)
	default:
		return withConsole(died(s.Machine), s.Machine)
	}
}
