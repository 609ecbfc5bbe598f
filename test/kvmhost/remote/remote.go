// Package remote runs commands at the other end of one byte stream: stdin, stdout and stderr apart, exit code, signals, a
// terminal. Any number of commands run side by side on one stream, and further streams can be opened within it.
//
// It speaks SSH with the one stream as its transport. The stream is private to its two ends (a virtio-serial port whose other
// end is a socket pair), so nobody proves who they are; SSH is here for its channels and its flow control. A command travels
// as JSON in SSH's exec request: an argument list, not a line for a shell.
package remote

import (
	"errors"
	"io"
)

// Command is what to run.
type Command struct {
	Args []string // program and arguments; the program is looked up on the other end's PATH
	Env  []string // "K=V", over the other end's own environment
	Dir  string   // working directory; empty is the other end's choice

	Stdin          io.Reader // nil is empty
	Stdout, Stderr io.Writer // nil drops

	// Terminal, when not nil, gives the command a terminal. Its output, stderr included, then comes on Stdout.
	Terminal *Terminal

	// Signals are passed to the command's process group as they come. Nil is none.
	Signals <-chan Signal
}

// Terminal is a terminal's kind and its size, which changes with each value from Resize. Resize may be nil.
type Terminal struct {
	Term   string
	Size   Size
	Resize <-chan Size
}

// Size is a terminal's size in characters.
type Size struct{ Columns, Rows int }

// Signal names a signal as SSH does: "INT", "TERM", "KILL", "HUP", "QUIT", "USR1", "USR2".
type Signal string

// Exit codes that the other end uses for a command that did not run, as a shell does.
const (
	ExitNotRunnable = 126 // the program is there but can't be started
	ExitNotFound    = 127 // there is no such program
	exitSignalled   = 128 // plus the signal's number
)

// ErrGone is the error of a command whose end is unknown because the stream ended first.
var ErrGone = errors.New("the other end is gone")

// wireCommand is the payload of the exec request.
type wireCommand struct {
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
}

// Channel types and requests of our own, beside SSH's.
const (
	streamChannel = "stream@kvmhost"
	// maxCommand bounds the exec request, in bytes.
	maxCommand = 200 << 10
)

// windowChange is the payload of SSH's window-change request, and the middle of its pty-req.
type windowChange struct{ Columns, Rows, Width, Height uint32 }

// ptyRequest is the payload of SSH's pty-req.
type ptyRequest struct {
	Term          string
	Columns, Rows uint32
	Width, Height uint32
	Modes         string
}

// exitStatus is the payload of SSH's exit-status request.
type exitStatus struct{ Code uint32 }
