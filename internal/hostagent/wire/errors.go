// Package wire is what the agent's server and its clients agree on beside the proto: how kinds of error become codes and back, and
// what the bounds in the proto refuse.
package wire

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	hostagentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// kinds are the codes of the kinds of error: the one place where they become each other.
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
	{errs.ErrCorrupt, connect.CodeDataLoss},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
	{context.Canceled, connect.CodeCanceled},
}

// Encode turns an error into one for the wire. Of several kinds in it the outermost counts: it is what the last one to speak meant.
func Encode(err error) error {
	if err == nil {
		return nil
	}
	var sent *connect.Error
	if errors.As(err, &sent) {
		return err
	}
	out := connect.NewError(Code(err), err)
	var field *errs.FieldError
	if out.Code() == connect.CodeInvalidArgument && errors.As(err, &field) {
		violation := &hostagentpb.FieldViolation{Field: field.Field, Problem: field.Problem, Fix: field.Fix}
		if detail, err := connect.NewErrorDetail(violation); err == nil {
			out.AddDetail(detail)
		}
	}
	return out
}

// Code is the code of an error's outermost kind, CodeInternal when it has none. Zero is no error.
func Code(err error) connect.Code {
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

// remote is an error that came over the wire.
type remote struct {
	kind error // nil for none
	text string
}

// Error is the text that was sent.
func (r *remote) Error() string { return r.text }

// Unwrap makes errors.Is true for the kind.
func (r *remote) Unwrap() error { return r.kind }

// Decode turns the error of a call into one with the kind that Encode saw. An agent that does not answer is ErrUnavailable.
func Decode(err error) error {
	var sent *connect.Error
	if err == nil || !errors.As(err, &sent) {
		return err
	}
	if field := violation(sent); field != nil {
		return field
	}
	text := sent.Message()
	if !connect.IsWireError(err) {
		text = fmt.Sprintf("the agent: %s", text)
	}
	for _, k := range kinds {
		if k.code == sent.Code() {
			return &remote{kind: k.kind, text: text}
		}
	}
	switch sent.Code() {
	case connect.CodePermissionDenied:
		return &remote{kind: errs.ErrUnauthenticated, text: text}
	case connect.CodeOutOfRange:
		return &remote{kind: errs.ErrInvalid, text: text}
	case connect.CodeUnimplemented:
		return &remote{kind: errs.ErrFailedPrecondition, text: "the agent does not know this call; is it older than this program? " + text}
	}
	return &remote{text: text}
}

// violation is the bad field that an error tells of, nil for none.
func violation(sent *connect.Error) error {
	if sent.Code() != connect.CodeInvalidArgument {
		return nil
	}
	for _, d := range sent.Details() {
		msg, err := d.Value()
		if err != nil {
			continue
		}
		if v, ok := msg.(*hostagentpb.FieldViolation); ok {
			return errs.Field(v.GetField(), v.GetProblem(), v.GetFix())
		}
	}
	return nil
}
