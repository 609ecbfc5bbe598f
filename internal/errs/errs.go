// Package errs holds the few kinds of error that cross package borders, so that a transport maps them in one place and
// nobody ever looks at an error's text.
//
// A package wraps one of the sentinels with %w:
//
//	return fmt.Errorf("template %q: %w", name, errs.ErrNotFound)
//
// and a caller asks with errors.Is. Bad input from a person is a *FieldError, which names the field and the fix.
//
// It is a leaf package: it imports nothing of ours.
package errs

import "errors"

// The kinds. Each says what the caller can do about it.
var (
	// ErrInvalid: the request itself is wrong; sending it again unchanged fails again.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound: what the request names does not exist.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists: what the request would make exists.
	ErrAlreadyExists = errors.New("already exists")
	// ErrFailedPrecondition: the system is not in the state that the request needs; something else must happen first.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrResourceExhausted: a limit, quota or disk is full.
	ErrResourceExhausted = errors.New("resource exhausted")
	// ErrUnavailable: a part that is needed does not answer now; the same request may work later.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnauthenticated: the caller did not prove who it is.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied: it is known who asks, and that one may not do this; somebody else may.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrCorrupt: stored state fails its own checks and is not used.
	ErrCorrupt = errors.New("corrupt")
)

// FieldError is bad input: which field, what is wrong with it, and what to do. It is an ErrInvalid.
type FieldError struct {
	Field   string // the name the caller used: "--memory", "template"
	Problem string // what is wrong with the value, with the value
	Fix     string // what would be right
}

// Field makes a FieldError.
func Field(field, problem, fix string) error {
	return &FieldError{Field: field, Problem: problem, Fix: fix}
}

// Error is one line: field, problem, fix.
func (e *FieldError) Error() string {
	s := e.Field + ": " + e.Problem
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Unwrap() error { return ErrInvalid }
