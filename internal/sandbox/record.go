package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/statefile"
	"wrenn.dev/wrenn/internal/vmm"
)

// State is where a sandbox is in its life.
type State string

// The states.
const (
	Starting State = "starting" // its parts are being made
	Running  State = "running"  // envd answers
	Pausing  State = "pausing"  // it is being frozen
	Paused   State = "paused"   // it is a build and has nothing else on the host
	Resuming State = "resuming" // its parts are being made anew
	Stopping State = "stopping" // its parts are being removed
	Failed   State = "failed"   // it ended by itself; see the reason
	Lost     State = "lost"     // it was running, and is not any more since the host was restarted or nobody watched it
	Stopped  State = "stopped"  // it is gone; no record is in this state, only who watches is told of it
	// Unreadable is what List says of a sandbox whose record is damaged: nothing else is known of it, and all that it has is left alone.
	Unreadable State = "unreadable"
)

// Change is one change of state, with its time and reason.
type Change struct {
	State  State     `json:"state"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Record is what the disk knows of a sandbox, and the journal of what is done with it: its state is what is under way. It is written
// before the step that it tells of, so whatever a killed process left in the kernel has an owner here. A sandbox that is starting,
// resuming, pausing or stopping was interrupted if nobody holds it; the steps in between need no entry of their own, since the names of
// all that they make follow from the id, and removing what was never made is no error.
type Record struct {
	Version    int              `json:"version"` // RecordVersion
	ID         string           `json:"id"`
	Template   string           `json:"template"`           // the template's name
	TemplateID string           `json:"template_id"`        // what the guest is told
	Snapshot   string           `json:"snapshot,omitempty"` // the name of the snapshot that it began from, if any
	Parts      manifest.Machine `json:"parts"`              // what the machine is made of
	Policy     network.Policy   `json:"policy"`
	Kept       bool             `json:"kept"`             // it outlives the process that made it
	Stream     bool             `json:"stream,omitempty"` // see Spec
	State      State            `json:"state"`
	Changes    []Change         `json:"changes"` // the last of them
	Slot       *int             `json:"slot,omitempty"`
	Machine    *vmm.Handle      `json:"machine,omitempty"`
	Pager      *process.Handle  `json:"pager,omitempty"`
	// Start is the id of the machine's start, which the guest knows it by.
	Start string `json:"start,omitempty"`
	// Boot is the boot id of the host at that time: a machine does not outlive it.
	Boot string `json:"boot,omitempty"`
	// Note is what the sandbox's maker keeps with it, see Spec.
	Note json.RawMessage `json:"note,omitempty"`
	// Began is the build that the machine began from, empty for a boot: what its pager serves.
	Began string `json:"began,omitempty"`
	// Build is the generation that the memory was last the same as: what the machine began from, or the last one that was frozen of
	// it. Empty for a machine that booted and was never frozen.
	Build string `json:"build,omitempty"`
	// Before is Build as it was when the pause under way began: a reference to another one says that the freeze was done.
	Before string `json:"before,omitempty"`
	// DiffLost says that a freeze failed after the machine's account of written pages was emptied for it: the next one has to
	// compare every page.
	DiffLost bool `json:"diff_lost,omitempty"`

	untold []Change // those that were not written yet
}

// RecordVersion is the version of Record that this code writes and reads.
const RecordVersion = 3

// maxChanges bounds the history that a record keeps.
const maxChanges = 64

// maxReason bounds the reason of one change, in bytes.
const maxReason = 1 << 10

// maxRecordBytes bounds what is read back. A record is some kilobytes; one with the longest note and history fits.
const maxRecordBytes = 1 << 20

const (
	recordName = "record.json"
	lockName   = "lock"
)

// change moves the record to a state.
func (r *Record) change(s State, reason string) {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	c := Change{State: s, Time: time.Now().UTC(), Reason: reason}
	r.State = s
	r.Changes, r.untold = append(r.Changes, c), append(r.untold, c)
	if extra := len(r.Changes) - maxChanges; extra > 0 {
		r.Changes = slices.Delete(r.Changes, 0, extra)
	}
}

// folder is a sandbox's folder on disk, held by this process: nobody else works on the sandbox while it is.
type folder struct {
	path string
	lock *os.File
	tell func(id string, c Change) // of each change of state that is on disk; nil tells nobody
	// wrote is told of each record that was put on disk, or was not; nil tells nobody.
	wrote func(took time.Duration, err error)
}

// ErrInUse is the ErrUnavailable of a sandbox that a living process works on, be it for a moment only.
var ErrInUse = fmt.Errorf("in use by another process: %w", errs.ErrUnavailable)

// hold takes the lock of an existing folder. It fails with ErrNotFound when there is no such folder and with ErrInUse when a living
// process holds it.
func hold(path string) (*folder, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sandbox %s: %w", filepath.Base(path), errs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("sandbox %s: %w", filepath.Base(path), ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return &folder{path: path, lock: f}, nil
}

// release gives up the lock; the folder stays.
func (d *folder) release() { _ = d.lock.Close() }

// remove deletes the folder with all that is in it, the record last, and gives up the lock: a process killed in between
// leaves a folder that still says whose it is.
func (d *folder) remove() error {
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == recordName || e.Name() == lockName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.path, e.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.path); err != nil {
		return err
	}
	d.release()
	return nil
}

// write puts the record on disk: whole and durable, or not at all.
func (d *folder) write(r *Record) (err error) {
	if d.wrote != nil {
		began := time.Now()
		defer func() { d.wrote(time.Since(began), err) }()
	}
	if err := statefile.Write(filepath.Join(d.path, recordName), r); err != nil {
		return fmt.Errorf("write the record of %s: %w", r.ID, err)
	}
	if d.tell != nil {
		for _, c := range r.untold {
			d.tell(r.ID, c)
		}
	}
	r.untold = nil
	return nil
}

// read returns the folder's record. ErrNotFound when the folder was made and its owner died before it wrote one; ErrCorrupt
// when it can't be read.
func (d *folder) read() (*Record, error) { return readRecord(d.path) }

func readRecord(path string) (*Record, error) {
	sandboxID, r := filepath.Base(path), new(Record)
	err := statefile.Read(filepath.Join(path, recordName), maxRecordBytes, r)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		return nil, fmt.Errorf("record of %s: %w", sandboxID, errs.ErrNotFound)
	case err == nil && r.Version != RecordVersion:
		err = fmt.Errorf("it has version %d, and this program reads %d: %w", r.Version, RecordVersion, errs.ErrCorrupt)
	case err == nil && (r.ID != sandboxID || len(r.Changes) == 0):
		err = fmt.Errorf("it is that of %.40q, with %d changes: %w", r.ID, len(r.Changes), errs.ErrCorrupt)
	}
	if errors.Is(err, errs.ErrCorrupt) {
		return nil, fmt.Errorf("the record of %[1]s can't be read, and what it has on the host is left alone: mend the file, or remove the sandbox with 'wrenn rm %[1]s': %[2]w",
			sandboxID, err)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}
