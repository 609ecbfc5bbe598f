// Package clone is what makes a clone distinct: a machine that was frozen and starts again, as itself or as another, has the
// memory of the one that was frozen, and must not be taken for it.
//
//	m, err := clone.System(warn)                         // early: from here on the kernel's log is followed
//	err = m.Freeze()                                     // before the machine is frozen
//	report, err := m.Distinguish(ctx, clone.Identity{…}) // after each start, before anything of a user's begins
//
// In this order, because each rests on those before it:
//
//	random    the kernel has said that it made its random pool anew because the machine is a clone; without that, nothing goes on
//	entropy   bytes of the host's go into the pool too, and what programs are given is made anew
//	clock     the clock, which stood since the freeze, is set to the host's
//	name      host name, and the line in /etc/hosts
//	bootid    /proc/sys/kernel/random/boot_id, which is the same in all clones, is covered by a file with another
//
// What programs of the guest keep in their own memory (keys, generators of random numbers, connections) stays as it was: nobody
// but them can know. So does the boot id in a mount namespace that was made before the first freeze.
package clone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// reseedPatience is how long the kernel may take to say that it reseeded. It does within milliseconds; an emulated machine, of
// many that start at once, may need much more.
const reseedPatience = 30 * time.Second

// Identity is what the host says of a start.
type Identity struct {
	Start    string // another one in every start
	Hostname string // empty is the default name
}

// Step is one thing that was done.
type Step struct {
	Name string
	Took time.Duration
	// Note says what was left out, and why. Empty when all was done.
	Note string
}

// Report is what Distinguish did.
type Report struct {
	// Offset is how far off the clock was: what was added to it.
	Offset time.Duration
	Steps  []Step
}

// Log is the kernel's log, followed from a position on.
type Log interface {
	// Mark moves the position behind everything that was logged so far.
	Mark() error
	// Next returns the record at the position, as it is in /dev/kmsg, and waits for one if there is none. It fails with ctx's cause
	// when ctx ends.
	Next(ctx context.Context) (string, error)
}

// Machine is a machine that may be a clone, in parts. Its methods may be called from several goroutines.
type Machine struct {
	Log Log
	// Entropy adds the host's randomness to the kernel's and makes the kernel use it at once. note says what is left out.
	Entropy func(ctx context.Context) (note string, err error)
	// Clock sets the clock and returns by how much. os.ErrNotExist when there is no other clock to set it by.
	Clock func() (time.Duration, error)
	// Name gives the machine a name.
	Name func(hostname string) error
	// BootID gives the machine a new boot id.
	BootID func() error
	// Patience replaces the 30 s that are waited for the kernel to say that it reseeded.
	Patience time.Duration

	mu sync.Mutex // held while the machine is made distinct
	// reseeded is the start for which the kernel said that it reseeded. It says so once, and what follows may have to be repeated.
	reseeded *string
}

// Freeze notes the position in the kernel's log: what is found there afterwards was said after the freeze. Without it the machine
// must not be frozen.
func (m *Machine) Freeze() error {
	if err := m.Log.Mark(); err != nil {
		return fmt.Errorf("follow the kernel's log: %w", err)
	}
	return nil
}

// Distinguish makes the machine distinct. It is all or nothing: after an error the machine must not be used, but Distinguish may be
// called again for the same start. ErrUnavailable when the kernel does not say that it reseeded.
func (m *Machine) Distinguish(ctx context.Context, id Identity) (Report, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var r Report
	for _, step := range []struct {
		name string
		do   func() (note string, err error)
	}{
		{"random", func() (string, error) { return "", m.confirm(ctx, id.Start) }},
		{"entropy", func() (string, error) { return m.Entropy(ctx) }},
		{"clock", func() (string, error) { return m.clock(&r) }},
		{"name", func() (string, error) { return "", m.Name(id.Hostname) }},
		{"bootid", func() (string, error) { return "", m.BootID() }},
	} {
		began := time.Now()
		note, err := step.do()
		if err != nil {
			return r, fmt.Errorf("%s: %w", step.name, err)
		}
		r.Steps = append(r.Steps, Step{Name: step.name, Took: time.Since(began), Note: note})
	}
	return r, nil
}

// confirm returns when the kernel has said that it reseeded for this start.
// Preconditions: mu is held.
func (m *Machine) confirm(ctx context.Context, start string) error {
	if m.reseeded != nil && *m.reseeded == start {
		return nil
	}
	patience := m.Patience
	if patience == 0 {
		patience = reseedPatience
	}
	if err := awaitReseed(ctx, m.Log, patience); err != nil {
		return err
	}
	m.reseeded = &start
	return nil
}

func (m *Machine) clock(r *Report) (note string, err error) {
	r.Offset, err = m.Clock()
	if errors.Is(err, os.ErrNotExist) {
		return "the host's clock is not there", nil
	}
	return "", err
}
