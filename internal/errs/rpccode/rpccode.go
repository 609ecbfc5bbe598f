// Package rpccode is the one place where kinds of error become codes of Connect and gRPC, and codes kinds.
package rpccode

import (
	"context"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
)

var kinds = []struct {
	kind error
	code connect.Code
}{
	{errs.ErrInvalid, connect.CodeInvalidArgument},
	{errs.ErrNotFound, connect.CodeNotFound},
	{errs.ErrAlreadyExists, connect.CodeAlreadyExists},
	{errs.ErrFailedPrecondition, connect.CodeFailedPrecondition},
	{errs.ErrResourceExhausted, connect.CodeResourceExhausted},
	{errs.ErrUnavailable, connect.CodeUnavailable},
	{errs.ErrUnauthenticated, connect.CodeUnauthenticated},
	{errs.ErrPermissionDenied, connect.CodePermissionDenied},
	{errs.ErrCorrupt, connect.CodeDataLoss},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
	{context.Canceled, connect.CodeCanceled},
}

// Of is the code of an error's outermost kind, CodeInternal when it has none. Zero is no error. Of several kinds the outermost counts:
// it is what the last one to speak meant.
func Of(err error) connect.Code {
	if err == nil {
		return 0
	}
	for level := []error{err}; len(level) > 0; level = below(level) {
		for _, e := range level {
			for _, k := range kinds {
				if e == k.kind {
					return k.code
				}
			}
		}
	}
	return connect.CodeInternal
}

// below are the errors that those of a level wrap.
func below(level []error) []error {
	var next []error
	for _, e := range level {
		switch w := e.(type) {
		case interface{ Unwrap() error }:
			if inner := w.Unwrap(); inner != nil {
				next = append(next, inner)
			}
		case interface{ Unwrap() []error }:
			next = append(next, w.Unwrap()...)
		}
	}
	return next
}

// Kind is the kind of error that has a code, nil when none has.
func Kind(code connect.Code) error {
	for _, k := range kinds {
		if k.code == code {
			return k.kind
		}
	}
	return nil
}
