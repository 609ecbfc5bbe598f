// Package cleanup keeps creation code of many steps linear and right: each step that made something pushes how to unmake
// it, and a failure later unmakes all of it in reverse.
//
//	cu := cleanup.New(ctx)
//	defer cu.Clean(&err)
//	… make a …
//	cu.Add("remove a", func(ctx context.Context) error { return remove(ctx, a) })
//	… make b …
//	cu.Release()
//
// Clean-up runs although the caller's context has ended: a caller that hangs up must not leave things behind.
//
// It is a leaf package.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Timeout bounds one clean-up step.
const Timeout = 60 * time.Second

// Do runs fn with a context that keeps ctx's values but not its end, and has a deadline of its own.
func Do(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	return fn(ctx)
}

// Stack is a list of things to undo, last first. It is not safe for use by several goroutines.
type Stack struct {
	ctx   context.Context
	steps []step
}

type step struct {
	name string
	undo func(context.Context) error
}

// New returns an empty stack whose steps run with ctx's values.
func New(ctx context.Context) *Stack { return &Stack{ctx: ctx} }

// Add pushes a step. The name is what an error of it is wrapped with.
func (s *Stack) Add(name string, undo func(context.Context) error) {
	s.steps = append(s.steps, step{name, undo})
}

// Release forgets the steps: what was made stays.
func (s *Stack) Release() { s.steps = nil }

// Clean undoes every step that is left, last first, each although others failed, and joins their errors to *err.
func (s *Stack) Clean(err *error) {
	for i := len(s.steps) - 1; i >= 0; i-- {
		if e := Do(s.ctx, s.steps[i].undo); e != nil {
			*err = errors.Join(*err, fmt.Errorf("%s: %w", s.steps[i].name, e))
		}
	}
	s.steps = nil
}
