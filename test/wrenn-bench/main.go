// Wrenn-bench measures what must be fast against the bare mechanism, in turn in one run, and prints the ratios. It needs a
// host that can run sandboxes; `make bench` gives it one.
//
//	wrenn-bench [--runs N] [--only REGEXP] [--out bench.json]
//	wrenn-bench control [--runs N] [--out bench-control.json]
//
// The second is the control plane's, over a host that is not there: it needs nothing but PostgreSQL.
//
// It exits with 1 when a figure breaks its limit.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager/pagertest"
	"wrenn.dev/wrenn/internal/pager/process"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == process.Command { // the sandboxes of a bench have their pagers in this program
		os.Exit(process.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == controlCommand {
		os.Exit(controlMain(os.Args[2:]))
	}
	pagertest.Main()
	runs := flag.Int("runs", 7, "pairs to measure")
	only := flag.String("only", "", "measure only what this regular expression matches: "+strings.Join(names(benches(nil, nil, 0)), ", "))
	out := flag.String("out", "bench.json", "file for the figures as JSON")
	var cfg assembly.Config
	flag.StringVar(&cfg.StateDir, "state-dir", "/var/lib/wrenn", "folder of all state")
	flag.StringVar(&cfg.Images, "images", os.Getenv("WRENN_IMAGES"), "folder of the templates")
	flag.StringVar(&cfg.Firecracker, "firecracker", "firecracker", "the firecracker binary")
	flag.StringVar(&cfg.Jailer, "jailer", "jailer", "the jailer binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, cfg, *runs, *only, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wrenn-bench:", err)
		code = 2
	}
	os.Exit(code)
}

func run(ctx context.Context, cfg assembly.Config, runs int, only, out string) (int, error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return 0, errs.Field("--only", err.Error(), "give a regular expression")
	}
	parts, err := assembly.New(cfg)
	if err != nil {
		return 0, err
	}
	figures, err := measure(ctx, parts, runs, wanted)
	if err != nil {
		return 0, err
	}
	if err := table(os.Stdout, figures); err != nil {
		return 0, err
	}
	if err := save(out, figures); err != nil {
		return 0, err
	}
	return verdict(figures), nil
}

// verdict tells of the figures that break their limits, and is the exit code.
func verdict(figures []figure) int {
	code := 0
	for _, f := range figures {
		if f.over() {
			fmt.Printf("%s: the ratio %.2f breaks its limit %.2f\n", f.Name, f.Ratio, f.Limit)
			code = 1
		}
	}
	return code
}

// crowdSize is how many sandboxes start at once: an emulated host has one CPU for them.
const crowdSize = 8

// bench measures one thing that must be fast.
type bench struct {
	name string
	take func(context.Context) ([]figure, error)
}

// benches are all of them, in the order in which they are taken.
func benches(parts *assembly.Parts, f *frozen, runs int) []bench {
	return []bench{
		{"boot", func(ctx context.Context) ([]figure, error) { return bootToOutput(ctx, parts, runs) }},
		{"start", func(ctx context.Context) ([]figure, error) { return f.startToOutput(ctx, runs) }},
		{"pause", func(ctx context.Context) ([]figure, error) { return f.pause(ctx, runs) }},
		{"crowd", func(ctx context.Context) ([]figure, error) { return f.crowd(ctx, crowdSize) }},
		{"agent", func(ctx context.Context) ([]figure, error) { return f.byAgent(ctx, runs) }},
		{"agent-size", agentMemory},
		{"pager-size", func(ctx context.Context) ([]figure, error) { return f.pagerSize(ctx) }},
		{"pager-loop", func(ctx context.Context) ([]figure, error) { return pagerLoop(ctx, runs) }},
		{"files", func(ctx context.Context) ([]figure, error) { return filesThroughTheAgent(ctx, parts, runs) }},
	}
}

func names(list []bench) []string {
	var out []string
	for _, b := range list {
		out = append(out, b.name)
	}
	return out
}

// measure takes the figures of the benches whose names match.
func measure(ctx context.Context, parts *assembly.Parts, runs int, wanted *regexp.Regexp) (figures []figure, err error) {
	f, remove, err := freezeOne(ctx, parts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cleanup.Do(ctx, remove)) }()
	for _, b := range benches(parts, f, runs) {
		if !wanted.MatchString(b.name) {
			continue
		}
		some, err := b.take(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		figures = append(figures, some...)
	}
	if len(figures) == 0 {
		return nil, errs.Field("--only", "no bench is called "+wanted.String(), "give one of "+strings.Join(names(benches(parts, f, runs)), ", "))
	}
	return figures, nil
}
