//go:build hosttest

package pagertest_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/pager/pagertest"
)

// order is how memory is walked through in a benchmark.
type order struct {
	name    string
	offsets func(pages int) []uint64
}

var orders = []order{
	{"upwards", func(pages int) []uint64 { return every(pages, 1) }},
	{"random", func(pages int) []uint64 {
		list := every(pages, 1)
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list
	}},
	// Sparse is the worst case of bringing in neighbours: none of them is ever needed.
	{"sparse", func(pages int) []uint64 { return every(pages, 16) }},
}

func every(pages, step int) (list []uint64) {
	for p := 0; p < pages; p += step {
		list = append(list, uint64(p)*page)
	}
	return list
}

// BenchmarkPagesPerSecond walks through 128 MiB of memory, all from one file in the page cache, with the bare loop and with the pager, one
// after the other in each round.
func BenchmarkPagesPerSecond(b *testing.B) {
	const pages = 32 << 10
	dir := b.TempDir()
	for _, threads := range []int{1, 4} {
		for _, o := range orders {
			b.Run(fmt.Sprintf("%s/threads=%d", o.name, threads), func(b *testing.B) { compare(b, dir, o, threads, pages) })
		}
	}
}

func compare(b *testing.B, dir string, o order, threads, pages int) {
	memory, err := pagertest.Flat(dir, pages, 3)
	if err != nil {
		b.Fatal(err)
	}
	offsets := o.offsets(pages)
	variants := []pagertest.Spec{{Bare: true}, {Around: 1}, {Around: 4}, {Around: 16}}
	nanos := make([]int64, len(variants))
	for b.Loop() {
		for i, s := range variants {
			s.Memory, s.Socket = memory, filepath.Join(dir, "sock")
			n, err := pagertest.Walk(s, pagertest.Job{Op: pagertest.OpWalk, Offsets: offsets, Threads: threads})
			if err != nil {
				b.Fatal(err)
			}
			nanos[i] += n
		}
	}
	for i, s := range variants {
		name := fmt.Sprintf("around%d-pages/s", s.Around)
		if s.Bare {
			name = "bare-pages/s"
		}
		b.ReportMetric(float64(b.N)*float64(len(offsets))/(float64(nanos[i])/1e9), name)
	}
}
