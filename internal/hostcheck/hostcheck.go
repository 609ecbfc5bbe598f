// Package hostcheck looks at every requirement of a host and says what is ok, what is not as it should be, and what keeps
// sandboxes from running, each with its fix.
//
// It tries the mechanism wherever it can and does not ask whether it ought to be there: a guest really runs in KVM, a rule
// set like a sandbox's really goes into a network namespace, two files really share their blocks. Everything that it makes
// is without a name and gone when it returns.
package hostcheck

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// State is how one requirement stands.
type State string

// The states.
const (
	OK      State = "ok"
	Warning State = "warning" // sandboxes run, but slower, less exactly, or less well defended
	Fail    State = "fail"    // sandboxes can't run
)

// Item is one requirement.
type Item struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`        // what was found
	Fix    string `json:"fix,omitempty"` // what to do, unless it is ok
}

// Report is what a check found.
type Report struct {
	Fit   bool   `json:"fit"` // nothing failed: sandboxes can run
	Items []Item `json:"items"`
}

// Options say what is to be used on this host.
type Options struct {
	// StateDir is the folder of all state; it need not be there yet.
	StateDir string
	// Firecracker and Jailer are the paths of the binaries, or their names on the PATH.
	Firecracker, Jailer string
	// UIDBase is the first of the uids that machines run under, Slots how many follow.
	UIDBase, Slots int
}

// host is where things are looked for: a test has them elsewhere.
type host struct {
	Options
	proc, sys, etc, dev string
}

// Check looks at everything. It leaves nothing behind and changes nothing but what the kernel loads by itself when it is asked
// for a device or a table.
func Check(ctx context.Context, opts Options) Report {
	return host{Options: opts, proc: "/proc", sys: "/sys", etc: "/etc", dev: "/dev"}.check(ctx)
}

// check runs the parts in the order in which they are printed: what everything else needs comes first.
func (h host) check(ctx context.Context) Report {
	var r Report
	for _, part := range []func(context.Context) []Item{
		h.privileges, h.kernel, h.kvm, h.deviceMapper, h.loop, h.userfaultfd, h.cgroups, h.network, h.firecracker, h.uids, h.space,
		h.reflink, h.swap, h.clock, h.smt, h.ksm,
	} {
		r.Items = append(r.Items, part(ctx)...)
	}
	r.Fit = true
	for _, item := range r.Items {
		r.Fit = r.Fit && item.State != Fail
	}
	return r
}

// Text prints the report for a person: a line an item, and the fix below where one is needed.
func (r Report) Text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, item := range r.Items {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", item.State, item.Name, item.Detail)
		if item.Fix != "" {
			fmt.Fprintf(tw, "\t\t→ %s\n", item.Fix)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	verdict := "\nThis machine can run sandboxes."
	if !r.Fit {
		verdict = "\nThis machine can't run sandboxes: see what failed."
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}

func ok(name, format string, args ...any) []Item {
	return []Item{{Name: name, State: OK, Detail: fmt.Sprintf(format, args...)}}
}

func warn(name, detail, fix string) []Item {
	return []Item{{Name: name, State: Warning, Detail: detail, Fix: fix}}
}

func fail(name, detail, fix string) []Item {
	return []Item{{Name: name, State: Fail, Detail: detail, Fix: fix}}
}

// failed is fail with an error's text, on one line.
func failed(name string, err error, fix string) []Item {
	return fail(name, strings.Join(strings.Fields(err.Error()), " "), fix)
}

// read returns a file's content without blanks around it.
func read(parts ...string) (string, error) {
	b, err := readBounded(filepath.Join(parts...))
	return strings.TrimSpace(string(b)), err
}
