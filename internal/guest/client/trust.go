package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// maxText is how many characters of a text from the guest are kept.
const maxText = 300

// clean makes a text from the guest fit for one line of a log or terminal: capped, and with every character that does not print
// as itself written as its number.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxText {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// guestError is what went wrong with a call. Its text is clean; of what it was made from, only the kind is kept.
type guestError struct {
	kind error
	text string
}

// Error is one line.
func (e *guestError) Error() string { return e.text }

// Unwrap makes errors.Is true for the kind.
func (e *guestError) Unwrap() error { return e.kind }

// broken turns the error of a call into one that is safe to show and has a kind. It is the one place where codes of the protocol
// become kinds of error. That a call was canceled or late is never believed of the guest: only this side knows.
func broken(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	var ce *connect.Error
	if errors.As(err, &ce) {
		text = ce.Message()
	}
	return &guestError{kind: kind(err), text: clean("guest: " + text)}
}

func kind(err error) error {
	// To the RPC library a connection that was reset means that the caller is gone. Here the guest is.
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errs.ErrUnavailable
	}
	var ce *connect.Error
	if !errors.As(err, &ce) || !connect.IsWireError(err) {
		return kindHere(err)
	}
	switch ce.Code() {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return errs.ErrInvalid
	case connect.CodeNotFound:
		return errs.ErrNotFound
	case connect.CodeAlreadyExists:
		return errs.ErrAlreadyExists
	case connect.CodeFailedPrecondition, connect.CodeUnimplemented:
		return errs.ErrFailedPrecondition
	case connect.CodeResourceExhausted:
		return errs.ErrResourceExhausted
	case connect.CodeUnauthenticated:
		return errs.ErrUnauthenticated
	case connect.CodePermissionDenied:
		return errs.ErrPermissionDenied
	}
	return errs.ErrUnavailable
}

// kindHere is the kind of an error that the guest did not send but that came up on this side: an end of the caller's, or an answer
// that could not be read.
func kindHere(err error) error {
	for _, k := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, k) {
			return k
		}
	}
	if connect.CodeOf(err) == connect.CodeUnauthenticated { // a bare 401
		return errs.ErrUnauthenticated
	}
	return errs.ErrUnavailable
}

// unsound is an answer that envd would never give.
func unsound(format string, args ...any) error {
	return &guestError{kind: errs.ErrUnavailable, text: clean("guest: the answer is not envd's: " + fmt.Sprintf(format, args...))}
}

// Result is how a command ended.
type Result struct {
	// ExitCode is 0 to 255, or -1 when a signal ended the command.
	ExitCode int
	// Signal is the one that ended the command, 0 when it exited by itself.
	Signal syscall.Signal
	// Status says it in words: "exit status N" or "signal: NAME".
	Status string
}

// result reads an end event, and refuses one that can't be.
func result(e *processpb.ProcessEvent_EndEvent) (Result, error) {
	if e.GetExited() {
		if e.GetExitCode() < 0 || e.GetExitCode() > 255 {
			return Result{}, unsound("exit code %d", e.GetExitCode())
		}
		code := int(e.GetExitCode())
		return Result{ExitCode: code, Status: fmt.Sprintf("exit status %d", code)}, nil
	}
	name, ok := strings.CutPrefix(e.GetStatus(), "signal: ")
	sig, known := signals[strings.TrimSuffix(name, coreDumped)]
	if !ok || !known {
		return Result{}, unsound("status %.100s", e.GetStatus())
	}
	return Result{ExitCode: -1, Signal: sig, Status: "signal: " + sig.String()}, nil
}

const coreDumped = " (core dumped)"

// lastSignal is the kernel's highest.
const lastSignal = 64

// signals has the names by which envd tells them.
var signals = func() map[string]syscall.Signal {
	m := map[string]syscall.Signal{}
	for s := syscall.Signal(1); s <= lastSignal; s++ {
		m[s.String()] = s
	}
	return m
}()
