// Package sandbox is the host-side life cycle: it composes machine, disk and network into a sandbox, and takes one apart
// again, whatever state it was left in.
//
// Every sandbox has a folder with a record, written before the step that it tells of, and a lock that the process working
// on the sandbox holds. All host objects have names that follow from the sandbox's id or from a file that names it, so a
// process may be killed at any line: Sweep finds what has no living owner and removes exactly that.
package sandbox

import (
	"context"
	"net"
	"time"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// Spec is what a caller asks for. Zero values take the template's.
type Spec struct {
	Template  string
	VCPUs     int
	MemoryMiB int
	DiskBytes int64
	Policy    network.Policy
	// Keep lets the sandbox outlive the process that made it: Sweep leaves it alone while its machine runs.
	Keep bool
	// Console connects the guest's serial port to the console log. It slows the boot.
	Console bool
}

// Templates is where templates come from; *template.Store is one.
type Templates interface {
	// Get returns a template. ErrNotFound names the ones that there are.
	Get(name string) (template.Template, error)
	// Path is the host path of one of a template's files.
	Path(digest string) string
}

// DialFunc connects to a TCP port of the guest.
type DialFunc func(ctx context.Context, port int) (net.Conn, error)

// Config is what a Manager works with.
type Config struct {
	// StateDir holds one folder a sandbox, below "sandboxes".
	StateDir  string
	VMM       vmm.Driver
	Disk      disk.Driver
	Network   network.Driver
	Templates Templates
	// UIDBase is the first of the uids that machines run under: slot n has UIDBase + n.
	UIDBase int
	// WaitReady returns when envd answers with the sandbox's token.
	WaitReady func(ctx context.Context, dial DialFunc, token string) error
	// StartTimeout bounds one start, from its first step to the answer of envd.
	StartTimeout time.Duration
}

// DefaultUIDBase starts a range that neither distributions nor systemd give to anybody.
const DefaultUIDBase = 1_900_000_000

// vmmOverheadBytes is what a VMM may use beside its guest's memory: its own code and buffers, and the page cache of its drives.
const vmmOverheadBytes = 96 << 20

// pidsMax bounds the threads of a VMM: it has one a virtual CPU, a few of its own, and KVM adds some in its name.
const pidsMax = 64

// Sandbox is a running sandbox in the hands of the process that made it.
type Sandbox struct {
	ID      string
	Token   string // what envd asks of every call; never written to disk
	Machine vmm.Machine
	Steps   []vmm.Step // what the start took, in the order in which the steps ended

	manager *Manager
	folder  *folder
	record  *Record
}

// Dial connects to a TCP port of the guest.
func (s *Sandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	return s.manager.cfg.Network.Dial(ctx, s.ID, port)
}

// Destroy ends the sandbox and removes all it has on the host.
func (s *Sandbox) Destroy(ctx context.Context, reason string) error {
	_ = s.Machine.Close()
	return s.manager.takeApart(ctx, s.ID, s.folder, s.record, reason)
}

// Leave gives the sandbox up without ending it. It stays until Manager.Destroy; Sweep leaves it alone only if it was made
// with Spec.Keep.
func (s *Sandbox) Leave() {
	_ = s.Machine.Close()
	s.folder.release()
}

// Died says why the machine ended, with the end of its log and console. Valid once Machine.Done is closed.
func (s *Sandbox) Died() error { return withConsole(died(s.Machine), s.Machine) }
