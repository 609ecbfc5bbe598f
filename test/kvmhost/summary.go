package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"wrenn.dev/wrenn/test/kvmhost/schedule"
	"wrenn.dev/wrenn/test/kvmhost/suite"
)

type outcome = schedule.Outcome[suite.Item, suite.Verdict]

// summarize prints a table of the outcomes, what went wrong, and the count. The error is exitTestsFailed when anything did.
func summarize(out io.Writer, outcomes []outcome, took time.Duration) error {
	var passed, failed, repeats int
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nRESULT\tTESTS\tTIME\tHOST\tWHAT")
	var problems []string
	for _, o := range outcomes {
		v := verdict(o)
		result, note := "ok", ""
		if !v.OK() {
			result = "FAIL"
		}
		if o.Again > 0 {
			note = fmt.Sprintf(" (RUN AGAIN %d times: its machine was lost)", o.Again)
		}
		fmt.Fprintf(w, "%s\t%d/%d\t%.1f s\t%d\t%s%s\n", result, v.Passed, v.Passed+v.Failed, o.Time.Seconds(), o.Host+1, o.Item.Label(), note)
		for _, p := range v.Problems {
			problems = append(problems, o.Item.Package.Name+": "+p)
		}
		passed, failed, repeats = passed+v.Passed, failed+v.Failed, repeats+o.Again
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range problems {
		fmt.Fprintln(out, "FAIL", p)
	}
	if repeats > 0 {
		fmt.Fprintf(out, "An emulated machine was lost and its tests were run again %d times.\n", repeats)
	}
	fmt.Fprintf(out, "in %.0f s\n%d passed, %d failed\n", took.Seconds(), passed, failed)
	if failed > 0 {
		return exitCode(exitTestsFailed)
	}
	return nil
}

// verdict is an outcome's; an item that did not come to its end has failed.
func verdict(o outcome) suite.Verdict {
	if o.Err != nil {
		return suite.Broken(o.Item, o.Err)
	}
	return o.Result
}

// labeller writes the lines of several writers to one, each with its writer's label.
type labeller struct {
	mu  sync.Mutex
	out io.Writer
}

// label returns a writer whose lines get a label. Close writes a last line that had no end.
func (l *labeller) label(name string) *labelled { return &labelled{to: l, prefix: "[" + name + "] "} }

// maxPartial is how much of a line without an end is kept back, in bytes.
const maxPartial = 16 << 10

type labelled struct {
	to     *labeller
	prefix string

	mu      sync.Mutex
	partial []byte
}

// Write writes the whole lines of p and keeps the rest back.
func (w *labelled) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, p...)
	for {
		line, rest, ok := bytes.Cut(w.partial, []byte{'\n'})
		if !ok && len(line) < maxPartial {
			return len(p), nil
		}
		if err := w.line(line); err != nil {
			return 0, err
		}
		w.partial = append(w.partial[:0], rest...)
	}
}

// Close writes what was kept back.
func (w *labelled) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial) == 0 {
		return nil
	}
	defer func() { w.partial = nil }()
	return w.line(w.partial)
}

func (w *labelled) line(line []byte) error {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	_, err := fmt.Fprintf(w.to.out, "%s%s\n", w.prefix, line)
	return err
}
