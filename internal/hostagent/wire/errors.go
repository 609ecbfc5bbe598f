// Package wire is what the agent's server and its clients agree on beside the proto: what of an error goes over it, and what the
// bounds in the proto refuse.
package wire

import (
	"errors"
	"fmt"
	"syscall"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/errs/rpccode"
	hostagentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Encode turns an error into one for the wire.
func Encode(err error) error {
	if err == nil {
		return nil
	}
	var sent *connect.Error
	if errors.As(err, &sent) {
		return err
	}
	out := connect.NewError(rpccode.Of(err), err)
	var field *errs.FieldError
	if out.Code() == connect.CodeInvalidArgument && errors.As(err, &field) {
		violation := &hostagentpb.FieldViolation{Field: field.Field, Problem: field.Problem, Fix: field.Fix}
		if detail, err := connect.NewErrorDetail(violation); err == nil {
			out.AddDetail(detail)
		}
	}
	return out
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
	// To the RPC library a connection that was reset means that the caller is gone. Here the agent is.
	if !connect.IsWireError(err) && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return &remote{kind: errs.ErrUnavailable, text: text}
	}
	if kind := rpccode.Kind(sent.Code()); kind != nil {
		return &remote{kind: kind, text: text}
	}
	switch sent.Code() {
	case connect.CodeOutOfRange:
		return &remote{kind: errs.ErrInvalid, text: text}
	case connect.CodeUnimplemented:
		return &remote{kind: errs.ErrFailedPrecondition, text: "the agent does not know this call; is it older than this program? " + text}
	}
	if sent.Code() == connect.CodeUnknown && !connect.IsWireError(err) {
		return &remote{kind: errs.ErrUnavailable, text: text} // the connection broke while the request was written, which Connect does not tell apart
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
