package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"

	"wrenn.dev/wrenn/internal/pager/pagertest"
)

// pagerLimit is how many pages a second the pager must bring in beside a loop that only reads and copies.
const pagerLimit = 0.7

// pagerPages is how many pages of 4096 bytes one walk touches.
const pagerPages = 4 << 10

// pagerLoop has a process touch its memory in random order, served by the pager one page at a time, beside the plain loop of read and
// copy without any bookkeeping.
func pagerLoop(_ context.Context, runs int) (_ []figure, err error) {
	dir, err := os.MkdirTemp("", "wrenn-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	memory, err := pagertest.Flat(dir, pagerPages, 1)
	if err != nil {
		return nil, err
	}
	job := pagertest.Job{Op: pagertest.OpWalk, Threads: 1}
	for _, p := range rand.New(rand.NewPCG(1, 1)).Perm(pagerPages) {
		job.Offsets = append(job.Offsets, uint64(p)*pagertest.Page)
	}
	var ours, bare []float64
	for range runs {
		for _, side := range []struct {
			spec  pagertest.Spec
			rates *[]float64
		}{{pagertest.Spec{Bare: true}, &bare}, {pagertest.Spec{Around: 1}, &ours}} {
			side.spec.Memory, side.spec.Socket = memory, filepath.Join(dir, "socket")
			nanos, err := pagertest.Walk(side.spec, job)
			if err != nil {
				return nil, err
			}
			*side.rates = append(*side.rates, pagerPages/(float64(nanos)/1e9))
		}
	}
	f := pairs("pages by the pager / by a plain loop", pagerLimit, ours, bare)
	f.Unit, f.Better = "1/s", "higher"
	return []figure{f}, nil
}
