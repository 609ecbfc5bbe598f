package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// bootLimit is how much longer than a bare Firecracker a sandbox may take to its first output.
const bootLimit = 1.3

// bootToOutput measures from nothing to the first output of a command: a sandbox with jail, disk, network and record,
// beside Firecracker alone with the same kernel, image and guest, whose disk and network are there already.
func bootToOutput(ctx context.Context, parts *assembly.Parts, runs int) ([]figure, error) {
	var ours, bare []time.Duration
	var steps []vmm.Step
	for i := range runs {
		b, err := bootBare(ctx, parts)
		if err != nil {
			return nil, fmt.Errorf("bare Firecracker: %w", err)
		}
		o, took, err := bootOurs(ctx, parts)
		if err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
		fmt.Printf("pair %d of %d: sandbox %.2f s, bare Firecracker %.2f s\n", i+1, runs, o.Seconds(), b.Seconds())
		ours, bare, steps = append(ours, o), append(bare, b), append(steps, took...)
	}
	if err := printCosts(os.Stdout, "a sandbox's boot", steps); err != nil {
		return nil, err
	}
	return []figure{compare("boot to first output", bootLimit, ours, bare)}, nil
}

// printCosts prints the median of each step of an operation that was done several times.
func printCosts(w io.Writer, what string, steps []vmm.Step) error {
	costs := map[string][]time.Duration{}
	var order []string
	for _, s := range steps {
		if costs[s.Name] == nil {
			order = append(order, s.Name)
		}
		costs[s.Name] = append(costs[s.Name], s.Took)
	}
	fmt.Fprintf(w, "\nwhat each step of %s takes (median):\n", what)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range order {
		fmt.Fprintf(tw, "%s\t%.1f ms\t\n", name, 1000*median(seconds(costs[name])))
	}
	fmt.Fprintln(tw)
	return tw.Flush()
}

func bootOurs(ctx context.Context, parts *assembly.Parts) (took time.Duration, steps []vmm.Step, err error) {
	began := time.Now()
	sb, err := parts.Manager.Create(ctx, sandbox.Spec{Template: "base", Cold: true, Policy: network.Policy{Internet: true}}, nil)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		err = errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return sb.Destroy(ctx, "measured") }))
	}()
	first, err := firstOutput(ctx, client.DialFunc(sb.Dial), sb.Token)
	return first.Sub(began), sb.Steps, err
}

// firstOutput runs a command in the guest and returns when its first output came.
func firstOutput(ctx context.Context, dial client.DialFunc, token string) (first time.Time, err error) {
	out := &firstWrite{}
	result, err := client.New(dial, token).Run(ctx, client.Command{Cmd: "echo", Args: []string{"hello"}, Stdout: out, Stderr: io.Discard})
	if err != nil {
		return first, err
	}
	if result.ExitCode != 0 || out.at.IsZero() {
		return first, fmt.Errorf("echo ended with %d and wrote nothing", result.ExitCode)
	}
	return out.at, nil
}

// firstWrite remembers when something was first written to it.
type firstWrite struct {
	once sync.Once
	at   time.Time
}

func (f *firstWrite) Write(p []byte) (int, error) {
	f.once.Do(func() { f.at = time.Now() })
	return len(p), nil
}
