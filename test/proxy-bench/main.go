// Proxy-bench measures the way to sandboxes' ports against nginx as a reverse proxy, both before the same server, in turn in one run, and prints
// the ratios. No sandbox takes part: what is compared is the proxy.
//
//	proxy-bench [--runs N] [--time 1s] [--out proxy-bench.json]
//
// It exits with 1 when a figure breaks its limit. It needs nginx, which tools/deps installs.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// limit is the least share of nginx's figure that ours must reach.
const limit = 0.8

func main() {
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		if err := play(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "proxy-bench:", err)
			os.Exit(2)
		}
		return
	}
	runs := flag.Int("runs", 5, "pairs to measure")
	each := flag.Duration("time", time.Second, "how long each side of a pair is measured")
	slack := flag.Float64("slack", 0, "how far below its limit a figure may be: few runs on a busy machine differ by as much")
	out := flag.String("out", "proxy-bench.json", "file for the figures as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	figures, err := measure(ctx, *runs, *each)
	if err == nil {
		err = save(*out, figures)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy-bench:", err)
		os.Exit(2)
	}
	code := 0
	for _, f := range figures {
		fmt.Println(f)
		if f.Ratio < f.Limit-*slack {
			code = 1
		}
	}
	os.Exit(code)
}

// figure is one comparison.
type figure struct {
	Name        string
	Unit        string
	Ours, Nginx float64 // medians
	Ratio       float64 // the median of the pairs' ratios
	Limit       float64
}

// String is a line for a person.
func (f figure) String() string {
	verdict := ""
	if f.Ratio < f.Limit {
		verdict = "  UNDER"
	}
	return fmt.Sprintf("%-28s ours %10.0f   nginx %10.0f %-6s  ratio %.2f  (at least %.2f)%s", f.Name, f.Ours, f.Nginx, f.Unit, f.Ratio, f.Limit, verdict)
}

// measure takes all figures.
func measure(ctx context.Context, runs int, each time.Duration) ([]figure, error) {
	c, err := start(ctx)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	var figures []figure
	for _, l := range loads {
		f := figure{Name: l.name, Unit: l.unit, Limit: limit}
		var ours, theirs, ratios []float64
		for range runs {
			a, err := l.take(ctx, c.ours, each)
			if err != nil {
				return nil, fmt.Errorf("%s, ours: %w", l.name, err)
			}
			b, err := l.take(ctx, c.nginx, each)
			if err != nil {
				return nil, fmt.Errorf("%s, nginx: %w", l.name, err)
			}
			ours, theirs, ratios = append(ours, a), append(theirs, b), append(ratios, a/b)
		}
		f.Ours, f.Nginx, f.Ratio = median(ours), median(theirs), median(ratios)
		figures = append(figures, f)
	}
	return figures, nil
}

// median of a list that is not empty.
func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// save writes the figures as JSON.
func save(path string, figures []figure) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
