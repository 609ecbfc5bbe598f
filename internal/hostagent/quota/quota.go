// Package quota counts what the sandboxes of a host take and refuses what would be too much, before anything of it is made.
//
// It is a leaf package but for errs.
package quota

import (
	"fmt"
	"sync"

	"wrenn.dev/wrenn/internal/errs"
)

// Amount is what a sandbox takes, or what all may.
type Amount struct {
	Sandboxes, VCPUs int
	MemoryMiB        int64
	DiskBytes        int64
}

func (a Amount) plus(b Amount) Amount {
	return Amount{a.Sandboxes + b.Sandboxes, a.VCPUs + b.VCPUs, a.MemoryMiB + b.MemoryMiB, a.DiskBytes + b.DiskBytes}
}

// Times is n of them.
func (a Amount) Times(n int) Amount {
	return Amount{a.Sandboxes * n, a.VCPUs * n, a.MemoryMiB * int64(n), a.DiskBytes * int64(n)}
}

// Asleep is what is left of it when the sandbox is paused: its part of the disk.
func (a Amount) Asleep() Amount { return Amount{DiskBytes: a.DiskBytes} }

// Ledger says who has what. Its methods may be called from several goroutines.
type Ledger struct {
	limits Amount

	mu   sync.Mutex
	held map[string]Amount
	used Amount
}

// New returns an empty ledger. A zero of the limits is no limit.
func New(limits Amount) *Ledger { return &Ledger{limits: limits, held: map[string]Amount{}} }

// Limits are those of New.
func (l *Ledger) Limits() Amount { return l.limits }

// Used is what all have together.
func (l *Ledger) Used() Amount {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// Held is what a name holds.
func (l *Ledger) Held(name string) Amount {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[name]
}

// Reserve has the name hold the amount from now on, in place of what it held, unless that is over a limit: then nothing changes and the
// error is an ErrResourceExhausted that says of what there is too little. What is less than before is never refused.
func (l *Ledger) Reserve(name string, a Amount) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.held[name]
	after := l.used.plus(before.Times(-1)).plus(a)
	for _, r := range []struct {
		what                string
		after, before, most int64
	}{
		{"sandboxes", int64(after.Sandboxes), int64(l.used.Sandboxes), int64(l.limits.Sandboxes)},
		{"virtual CPUs", int64(after.VCPUs), int64(l.used.VCPUs), int64(l.limits.VCPUs)},
		{"MiB of memory", after.MemoryMiB, l.used.MemoryMiB, l.limits.MemoryMiB},
		{"bytes of disk", after.DiskBytes, l.used.DiskBytes, l.limits.DiskBytes},
	} {
		if r.most > 0 && r.after > r.most && r.after > r.before {
			return fmt.Errorf("the host gives its sandboxes %d %s: %d are taken, and %d more were asked for: %w",
				r.most, r.what, r.before, r.after-r.before, errs.ErrResourceExhausted)
		}
	}
	l.set(name, a)
	return nil
}

// Set is Reserve of what is there already, whatever the limits.
func (l *Ledger) Set(name string, a Amount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(name, a)
}

func (l *Ledger) set(name string, a Amount) {
	l.used = l.used.plus(l.held[name].Times(-1)).plus(a)
	if l.held[name] = a; a == (Amount{}) {
		delete(l.held, name)
	}
}

// Split gives each of the names the amount, and takes away all that the first name holds, at once.
func (l *Ledger) Split(name string, names []string, each Amount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(name, Amount{})
	for _, n := range names {
		l.set(n, each)
	}
}
