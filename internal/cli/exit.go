package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// The exit codes of wrenn itself. A command that ran in a sandbox passes its own through instead.
const (
	exitUsage   = 2   // bad input; nothing was made
	exitTimeout = 124 // --timeout ended the command
	exitFailed  = 125 // wrenn failed, not the command
	exitDenied  = 126 // the caller, or the guest's user, may not do that
	exitSignal  = 128 // plus the signal's number: a signal ended the command
)

// exitHelp is the part of the help that tells them.
const exitHelp = `Exit codes: the command's own; 2 bad input, nothing was made; 124 the timeout ended the command;
125 wrenn itself failed, or no agent or server answers where one is needed; 126 permission denied; 128+N signal N ended the command.`

// exitCode carries the code of a command that ran: there is nothing to print.
type exitCode int

// Error is never shown.
func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// report prints an error, if it is one to print, and returns the process's exit code. It is the one place where kinds of
// error become exit codes.
func report(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if code, ok := err.(exitCode); ok { // bare: joined with another error, that one is to be told
		return int(code)
	}
	fmt.Fprintln(stderr, "wrenn: "+strings.TrimSpace(err.Error()))
	switch {
	case errors.Is(err, errs.ErrInvalid):
		return exitUsage
	case errors.Is(err, errs.ErrPermissionDenied):
		return exitDenied
	case errors.Is(err, context.Canceled):
		return exitSignal + 2
	}
	return exitFailed
}
