package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// figure is one comparison: ours and the bare mechanism, measured in turn in one run.
type figure struct {
	Name   string  `json:"name"`
	Ours   float64 `json:"ours"`   // median
	Theirs float64 `json:"theirs"` // median of the bare mechanism
	Unit   string  `json:"unit"`
	Ratio  float64 `json:"ratio"` // median of the pairs' ratios
	Limit  float64 `json:"limit"` // what the ratio must keep to, 0 for none
	Better string  `json:"better"`
	Runs   int     `json:"runs"`
	Spread float64 `json:"spread"` // (largest - smallest) / median of the pairs' ratios
}

// compare makes a figure of times that were measured in pairs.
func compare(name string, limit float64, ours, theirs []time.Duration) figure {
	return pairs(name, limit, seconds(ours), seconds(theirs))
}

// pairs makes a figure of values that were measured in pairs, in seconds and the lower the better.
func pairs(name string, limit float64, ours, theirs []float64) figure {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / theirs[i]
	}
	return figure{
		Name: name, Ours: median(ours), Theirs: median(theirs), Unit: "s", Ratio: median(ratios), Limit: limit,
		Better: "lower", Runs: len(ours), Spread: spread(ratios),
	}
}

// spread is how far a list is apart, beside its median.
func spread(list []float64) float64 { return (slices.Max(list) - slices.Min(list)) / median(list) }

// overlapCPUs is how many CPUs it takes for what we do beside the bare mechanism (the pager, digests) to be done at the same time.
// With fewer each of them is added to the time, and the limit of a figure that counts on it is printed but not kept to.
const overlapCPUs = 2

// overlapping takes the limit from a figure on a host with too few CPUs for it.
func (f figure) overlapping() figure {
	if runtime.NumCPU() < overlapCPUs {
		f.Name += fmt.Sprintf(" (limit %.2f from %d CPUs on)", f.Limit, overlapCPUs)
		f.Limit = 0
	}
	return f
}

// over says that the figure breaks its limit.
func (f figure) over() bool {
	if f.Limit == 0 {
		return false
	}
	if f.Better == "higher" {
		return f.Ratio < f.Limit
	}
	return f.Ratio > f.Limit
}

func seconds(list []time.Duration) []float64 {
	out := make([]float64, len(list))
	for i, d := range list {
		out[i] = d.Seconds()
	}
	return out
}

// median of a list that is not empty.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// table prints figures for a person.
func table(w io.Writer, figures []figure) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "name\tours\tbare\tunit\tratio\tlimit\truns\tspread\t")
	for _, f := range figures {
		limit, verdict := "-", ""
		if f.Limit != 0 {
			limit = fmt.Sprintf("%.2f", f.Limit)
		}
		if f.over() {
			verdict = "OVER"
		}
		fmt.Fprintf(tw, "%s\t%.3f\t%.3f\t%s\t%.2f\t%s\t%d\t%.0f%%\t%s\n", f.Name, f.Ours, f.Theirs, f.Unit, f.Ratio, limit, f.Runs, 100*f.Spread, verdict)
	}
	return tw.Flush()
}

// save writes the figures as JSON.
func save(path string, figures []figure) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
