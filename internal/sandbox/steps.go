package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm"
)

// steps collects how long each part of an operation took. Parts that run side by side may add to it at once.
type steps struct {
	tell func(vmm.Step)

	mu   sync.Mutex
	list []vmm.Step
}

func newSteps(tell func(vmm.Step)) *steps { return &steps{tell: tell} }

// all is what was kept so far.
func (s *steps) all() []vmm.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// time runs fn and keeps how long it took, under name.
func (s *steps) time(name string, fn func() error) error {
	began := time.Now()
	err := fn()
	s.add(vmm.Step{Name: name, Took: time.Since(began)})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (s *steps) add(more ...vmm.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range more {
		s.list = append(s.list, step)
		if s.tell != nil {
			s.tell(step)
		}
	}
}

// full makes an error that says that the disk is full one of its kind.
func full(err error) error {
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && !errors.Is(err, errs.ErrResourceExhausted) {
		return fmt.Errorf("%w: %w", err, errs.ErrResourceExhausted)
	}
	return err
}

// cause puts why the context ended before an error that only says that it did.
func cause(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if c := context.Cause(ctx); c != nil && !errors.Is(err, c) {
		return fmt.Errorf("%w (%w)", c, err)
	}
	return err
}

// died says why the machine is gone.
func died(machine vmm.Machine) error {
	x := machine.Exit()
	return fmt.Errorf("the machine ended (%s): %s: %w", x.Reason, x.Detail, errs.ErrUnavailable)
}

// consoleBytes is how much of the log and of the console goes into an error: a kernel's panic with its trace fits.
const consoleBytes = 16 << 10

// withConsole adds the end of the machine's log and console to an error, for the person who has to find out why.
func withConsole(err error, machine vmm.Machine) error {
	log, console := machine.ConsoleTail(consoleBytes)
	if log != "" {
		err = fmt.Errorf("%w\nthe end of the VMM's log:\n%s", err, log)
	}
	if console != "" {
		err = fmt.Errorf("%w\nthe end of the guest's console:\n%s", err, console)
	}
	return err
}
