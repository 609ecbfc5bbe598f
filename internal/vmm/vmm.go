// Package vmm is the domain of the microVM: what one is made of, how it is started, found again, watched and ended.
//
// # Life of a machine
//
//	m, err := driver.Start(ctx, cfg)     // jailed, running: booted, or begun from a frozen one (Config.From)
//	…                                    // the process outlives whoever started it
//	m, err = driver.Recover(ctx, handle) // the same machine, found again by a later process
//	err = m.Pause(ctx)                   // it stands still
//	err = m.Snapshot(ctx, files)         // and its state and memory are in files
//	err = m.Resume(ctx)                  // it goes on
//	<-m.Done(); m.Exit()                 // it ended, and why
//	err = m.Kill(ctx)                    // or it is ended
//	err = driver.Remove(ctx, cfg.ID)     // everything that it had on the host is given back
//
// A driver makes a machine's host objects (process, cgroup, chroot) under names that follow from its id alone, so Remove
// and List need no record but the id: what a killed process left half made is found and removed the same way as a whole
// machine. The guest is hostile; nothing it does may block a method for longer than its context.
//
// vmm/firecracker implements the interfaces; vmm/vmmtest is the suite that every implementation passes.
package vmm

import (
	"context"
	"time"
)

// Config is everything that a machine starts with. Paths are the host's; the driver makes them reachable inside the jail.
type Config struct {
	// ID is the sandbox id. It names every host object of the machine.
	ID string
	// VCPUs is the number of virtual CPUs, 1 to MaxVCPUs.
	VCPUs int
	// MemoryMiB is the guest's memory in MiB, at least MinMemoryMiB.
	MemoryMiB int
	// Kernel is an uncompressed ELF kernel, Initramfs its initial file system. Empty with From.
	Kernel, Initramfs string
	// BootArgs is the kernel command line. Empty with From.
	BootArgs string
	// From is the frozen machine that this one begins from, nil to boot. VCPUs, MemoryMiB, drives and NIC must be what the frozen
	// one had; the drives' content, too, as it was then. Metadata is a new document.
	From *Frozen
	// TrackDirty keeps account of the pages that are written, which a Diff snapshot needs.
	TrackDirty bool
	// Drives in the order the guest sees them: the first is /dev/vda.
	Drives []Drive
	// NIC is the network interface, nil for none.
	NIC *NIC
	// Metadata is the first document of the metadata service: nil for no service. It needs a NIC.
	Metadata map[string]any
	// Jail confines the process.
	Jail Jail
	// Console, when true, connects the guest's serial port to the console log.
	Console bool
}

// Frozen is where a frozen machine is.
type Frozen struct {
	// State is the file of the VMM's state, of Snapshot.
	State string
	// Memory is the file of the whole memory, mapped privately. It must not change while the machine runs. Exactly one of Memory
	// and Pager is given.
	Memory string
	// Pager is the socket that a page-fault server listens on, on the file system of the driver's state folder and open to the
	// jail's uid.
	Pager string
}

// Snapshot is what a machine is frozen into: files that do not exist yet, in a folder on the file system of the driver's state
// folder. They belong to the caller's user and are read-only once they are whole.
type Snapshot struct {
	State  string
	Memory string
	// Diff writes only the pages that changed since the last snapshot, or since the start: where nothing changed, the memory file,
	// which has its full length, has a hole.
	Diff bool
}

// Fingerprint is what a snapshot depends on beside the machine itself.
type Fingerprint struct {
	// VMM and Version name the program: "firecracker", "1.12.1".
	VMM     string `json:"vmm"`
	Version string `json:"version"`
	// SnapshotFormat is the version of its state files. One of another version can't be loaded.
	SnapshotFormat string `json:"snapshot_format"`
	// DiffMaxMiB is the most memory of a machine whose Diff snapshots can be relied on, 0 for any: see the driver.
	DiffMaxMiB int `json:"diff_max_mib,omitempty"`
}

// Drive is a block device of the guest.
type Drive struct {
	// ID is letters, digits and underscores. It is also the file's name inside the jail, the same in every jail, because a
	// snapshot records it.
	ID string
	// Path is a regular file or a block device on the host.
	Path string
	// ReadOnly drives may be shared between machines.
	ReadOnly bool
}

// NIC is the guest's network interface.
type NIC struct {
	// TAP is the name of an existing TAP device in the jail's network namespace.
	TAP string
	// MAC is the guest's hardware address.
	MAC string
}

// Jail is what confines the machine's process.
type Jail struct {
	// UID and GID are the machine's own: no other process on the host runs under them.
	UID, GID int
	// NetNS is the path of the network namespace that the process runs in.
	NetNS string
	// Limits are the cgroup's.
	Limits Limits
}

// Limits bound what the machine's process may take from the host.
type Limits struct {
	// MemoryMaxBytes is memory.max. It must leave room above the guest's memory for the VMM itself.
	MemoryMaxBytes int64
	// CPUQuota is how many CPUs the process may use (cpu.max over a period of 100 ms), 0 for no limit.
	CPUQuota float64
	// PIDsMax is pids.max: threads included.
	PIDsMax int
}

// Driver starts machines and finds them again. Its methods may be called from several goroutines and several processes,
// at most one at a time for one id.
type Driver interface {
	// Start boots a machine and returns when its virtual CPUs run. When it fails it has removed what it made.
	// Errors: ErrInvalid for a Config it refuses before making anything, ErrNotFound when one of its files is not there,
	// ErrAlreadyExists when the id has host objects, ErrFailedPrecondition when the VMM or the host refuses a part of it,
	// ErrUnavailable when the VMM did not come up or died. What the VMM refused comes with its own words and the request that
	// it was. The machine's process is not a child that dies with the caller.
	Start(ctx context.Context, cfg Config) (Machine, error)
	// Recover returns the running machine that a handle tells of. ErrNotFound when it is gone or when the process is not
	// the one that the handle names: pid, start time and boot id must all match.
	Recover(ctx context.Context, h Handle) (Machine, error)
	// Remove ends the machine if it runs and removes all that the driver made for the id: process, cgroup, chroot, sockets.
	// It is idempotent; an id that has nothing is no error.
	Remove(ctx context.Context, id string) error
	// List returns the ids that have any host object of this driver, whole or half made.
	List(ctx context.Context) ([]string, error)
	// Fingerprint says what this driver's snapshots depend on. ErrNotFound when the VMM is not installed,
	// ErrFailedPrecondition when it can't be used.
	Fingerprint(ctx context.Context) (Fingerprint, error)
}

// Machine is one running or ended microVM. Its methods are safe for use by several goroutines.
type Machine interface {
	// Handle is what Recover needs, in a form that survives in a file.
	Handle() Handle
	// Pause stops the virtual CPUs and returns when they stand still. Resume lets them go on. Both are idempotent.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Snapshot freezes a paused machine into files; it stays paused. When it fails, the files are not there and the machine is as
	// before. Errors: ErrFailedPrecondition when the machine is not paused or, for a Diff, was started without TrackDirty;
	// ErrAlreadyExists when a file is there; ErrResourceExhausted when the file system is full; ErrUnavailable when the machine
	// has ended.
	Snapshot(ctx context.Context, s Snapshot) error
	// PatchMetadata merges doc into the metadata document (JSON merge patch: a nil value removes its key).
	PatchMetadata(ctx context.Context, doc map[string]any) error
	// Done is closed as soon as the process is gone.
	Done() <-chan struct{}
	// Exit says how it ended. Valid once Done is closed.
	Exit() Exit
	// Kill ends the process and returns when it is gone. A machine that has ended is no error.
	Kill(ctx context.Context) error
	// ConsoleTail returns the end of the VMM's log and of the guest's console, at most limit bytes of each, made safe to
	// print: what a person needs when a machine died.
	ConsoleTail(limit int) (vmmLog, console string)
	// Timings are the steps of the start, in order. Nil on a recovered machine.
	Timings() []Step
	// Close gives up what the watching costs. It does not end the machine. Of a machine closed before its end, Done may stay
	// open for ever.
	Close() error
}

// Step is a named part of an operation and the time it took.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Handle names a machine's process beyond doubt, across restarts of whoever started it.
type Handle struct {
	Version   int    `json:"version"` // HandleVersion
	ID        string `json:"id"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // field 22 of /proc/PID/stat, in clock ticks since boot
	BootID    string `json:"boot_id"`
	// Executable is the file that the process runs, as proc.Executable says it.
	Executable string `json:"executable"`
	Driver     string `json:"driver"` // the driver's name and the VMM's version: "firecracker 1.12.1"
}

// HandleVersion is the version of the Handle format that this code writes.
const HandleVersion = 2

// Exit is how a machine ended.
type Exit struct {
	Reason ExitReason `json:"reason"`
	Code   int        `json:"code"`   // the process's exit code, -1 when a signal ended it or it could not be learnt
	Signal int        `json:"signal"` // the signal that ended it, 0 for none
	Time   time.Time  `json:"time"`
	Detail string     `json:"detail"` // one printable line for a person
}

// ExitReason is why a machine ended.
type ExitReason string

// The reasons.
const (
	ExitGuest   ExitReason = "guest"   // the guest rebooted, panicked or shut down
	ExitKilled  ExitReason = "killed"  // Kill or Remove was called
	ExitSignal  ExitReason = "signal"  // somebody else's signal
	ExitOOM     ExitReason = "oom"     // the host killed it for its cgroup's memory limit
	ExitError   ExitReason = "error"   // the VMM gave up: see Detail and its log
	ExitUnknown ExitReason = "unknown" // a recovered machine whose exit status nobody collected
)

// Inspector is what a driver can also be that confines its machines: it tells how, as the kernel says and not as it was
// asked for. It is found by type assertion.
type Inspector interface {
	// Inspect returns the confinement of a running machine. ErrNotFound when the id has none.
	Inspect(ctx context.Context, id string) (Confinement, error)
}

// Tidier is what a driver can also be that keeps on the host what speeds up the next start. It is found by type assertion.
type Tidier interface {
	// Tidy removes what of it no machine has used for long.
	Tidy(ctx context.Context) error
}

// Meter is what a driver can also be that knows what its machines take of the host. It is found by type assertion.
type Meter interface {
	// Usage returns what a machine takes, its VMM included. ErrNotFound when the id has none.
	Usage(ctx context.Context, id string) (Usage, error)
}

// Usage is what a machine takes of the host.
type Usage struct {
	// CPU is the time that it has used, in all, since its start.
	CPU time.Duration
	// MemoryBytes is what it has now, of at most MemoryMaxBytes; 0 is no limit.
	MemoryBytes, MemoryMaxBytes int64
}

// Confinement is what holds a machine's process. Where its threads differ, it is that of the least confined one.
type Confinement struct {
	PID      int      `json:"pid"`
	UID      int      `json:"uid"`          // real, effective, saved and file system id; -1 when they differ
	GID      int      `json:"gid"`          // the same of the groups
	Groups   []int    `json:"groups"`       // supplementary groups
	Seccomp  int      `json:"seccomp"`      // 0 none, 1 strict, 2 filter
	Caps     uint64   `json:"capabilities"` // effective, permitted, inheritable and ambient, together
	NewPrivs bool     `json:"new_privs"`    // a program it executes could gain privileges
	Root     string   `json:"root"`         // the host's path of its root folder
	CGroup   string   `json:"cgroup"`       // path in the unified hierarchy
	NSPids   []int    `json:"ns_pids"`      // its pid in each nested pid namespace, the host's first
	Shared   []string `json:"shared"`       // kinds of namespaces that it shares with the caller: "mnt", "net", "pid", …
}
