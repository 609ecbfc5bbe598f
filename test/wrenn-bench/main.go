// Wrenn-bench measures what must be fast against the bare mechanism, in turn in one run, and prints the ratios. It needs a
// host that can run sandboxes; `make bench` gives it one.
//
//	wrenn-bench [--runs N] [--out bench.json]
//
// It exits with 1 when a figure breaks its limit.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"wrenn.dev/wrenn/internal/assembly"
)

func main() {
	runs := flag.Int("runs", 7, "pairs to measure")
	out := flag.String("out", "bench.json", "file for the figures as JSON")
	var cfg assembly.Config
	flag.StringVar(&cfg.StateDir, "state-dir", "/var/lib/wrenn", "folder of all state")
	flag.StringVar(&cfg.Images, "images", os.Getenv("WRENN_IMAGES"), "folder of the templates")
	flag.StringVar(&cfg.Firecracker, "firecracker", "firecracker", "the firecracker binary")
	flag.StringVar(&cfg.Jailer, "jailer", "jailer", "the jailer binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, cfg, *runs, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wrenn-bench:", err)
		code = 2
	}
	os.Exit(code)
}

func run(ctx context.Context, cfg assembly.Config, runs int, out string) (int, error) {
	parts, err := assembly.New(cfg)
	if err != nil {
		return 0, err
	}
	figures, err := bootToOutput(ctx, parts, runs)
	if err != nil {
		return 0, err
	}
	if err := table(os.Stdout, figures); err != nil {
		return 0, err
	}
	if err := save(out, figures); err != nil {
		return 0, err
	}
	for _, f := range figures {
		if f.over() {
			fmt.Printf("%s: the ratio %.2f is over its limit %.2f\n", f.Name, f.Ratio, f.Limit)
			return 1, nil
		}
	}
	return 0, nil
}
