//go:build hosttest

package pagertest_test

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"wrenn.dev/wrenn/internal/pager/pagertest"
)

const hugePage = 2 << 20

// reserve has the host set huge pages aside for the length of the test, and says whether it could.
func reserve(t *testing.T, pages int) bool {
	t.Helper()
	const path = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
	read := func(name string) int {
		data, err := os.ReadFile(path + name)
		if err != nil {
			return 0
		}
		n, _ := strconv.Atoi(string(bytes.TrimSpace(data)))
		return n
	}
	before := read("nr_hugepages")
	if err := os.WriteFile(path+"nr_hugepages", []byte(strconv.Itoa(before+pages)), 0); err != nil {
		t.Logf("no huge pages on this host: %v", err)
		return false
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path+"nr_hugepages", []byte(strconv.Itoa(before)), 0); err != nil {
			t.Error(err)
		}
	})
	return read("free_hugepages") >= pages
}

// TestHugePages serves a region of huge pages beside one of small ones. Where the kernel has no huge pages to give,
// TestRegionsAndHugePages covers the path with memory that is a map.
func TestHugePages(t *testing.T) {
	const count = 8
	if !reserve(t, count) {
		return
	}
	s := spec(t, 2*count*hugePage/page)
	s.Leave = true
	half := uint64(count * hugePage)
	r := start(t, s, pagertest.RegionSpec{Offset: 0, Size: half}, pagertest.RegionSpec{Offset: half, Size: half, Huge: true})
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: half + hugePage, To: half + 2*hugePage})
	r.read(r.all(), 4, half+hugePage, half+2*hugePage)
	atRest(t, r.server.PID())
	if err := r.client().Stream(t.Context()); err != nil {
		t.Fatal(err)
	}
	stats, err := r.server.Wait()
	if err != nil || stats.Removed != 1 {
		t.Fatalf("%v, %v", stats, err)
	}
	r.read(r.all(), 4, half+hugePage, half+2*hugePage)
}
