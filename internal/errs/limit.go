package errs

import (
	"errors"
	"fmt"
	"time"
)

// QuotaError is a quota that is full: of whom, of what, how much of it is used and was asked for. It is an ErrResourceExhausted.
type QuotaError struct {
	Whose              string // "team" or "API key"
	Field              string // the quota's name: "memory_mib"
	Used, Limit, Asked int64
}

// Error implements error.
func (e *QuotaError) Error() string {
	return fmt.Sprintf("%s: the %s may have %d, %d are used, and %d more were asked for", e.Field, e.Whose, e.Limit, e.Used, e.Asked)
}

// Unwrap makes errors.Is(err, ErrResourceExhausted) true.
func (e *QuotaError) Unwrap() error { return ErrResourceExhausted }

// waitError is an error that goes away by itself.
type waitError struct {
	error
	wait time.Duration
}

// Unwrap is the error without its time.
func (e *waitError) Unwrap() error { return e.error }

// After is an error with the time after which the same request may work.
func After(wait time.Duration, err error) error { return &waitError{err, wait} }

// Wait is the time of After, if the error has one.
func Wait(err error) (time.Duration, bool) {
	var w *waitError
	if !errors.As(err, &w) {
		return 0, false
	}
	return w.wait, true
}
