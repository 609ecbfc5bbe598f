//go:build hosttest

package pagertest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/pager/pagertest"
)

func TestMain(m *testing.M) {
	pagertest.Main()
	os.Exit(m.Run())
}

const page = pagertest.Page

// rig is a memory with a pager in a process of its own, and a victim that is connected to it.
type rig struct {
	t      *testing.T
	spec   pagertest.Spec
	sums   []uint32
	server *pagertest.Server
	victim *pagertest.Victim
}

// spec makes memory and says how to serve it.
func spec(t *testing.T, pages int) pagertest.Spec {
	t.Helper()
	dir := t.TempDir()
	m, err := pagertest.Random(dir, pages, 3, 20, 7)
	if err != nil {
		t.Fatal(err)
	}
	return pagertest.Spec{Memory: m, Socket: filepath.Join(dir, "uffd.sock"), Control: filepath.Join(dir, "control.sock")}
}

// start starts the processes. The regions are the two halves of memory unless others are given.
func start(t *testing.T, spec pagertest.Spec, regions ...pagertest.RegionSpec) *rig {
	t.Helper()
	sums, err := spec.Sums()
	if err != nil {
		t.Fatal(err)
	}
	server, err := pagertest.StartServer(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.End)
	victim, err := pagertest.StartVictim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(victim.End)
	if half := spec.Layout.Size() / 2; regions == nil {
		regions = []pagertest.RegionSpec{{Offset: 0, Size: half}, {Offset: half, Size: half}}
	}
	r := &rig{t, spec, sums, server, victim}
	r.do(pagertest.Job{Op: pagertest.OpHello, Socket: spec.Socket, Regions: regions})
	return r
}

func (r *rig) do(j pagertest.Job) pagertest.Result {
	r.t.Helper()
	result, err := r.victim.Do(j)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

// all is every page's offset, in a random order.
func (r *rig) all() []uint64 {
	rnd := rand.New(rand.NewPCG(1, 2))
	offsets := make([]uint64, len(r.sums))
	for i, n := range rnd.Perm(len(offsets)) {
		offsets[i] = uint64(n) * page
	}
	return offsets
}

// read has pages read by several threads and compares them with the layout; of those in the range that was removed, with zero.
func (r *rig) read(offsets []uint64, threads int, removedFrom, removedTo uint64) {
	r.t.Helper()
	zero := pagertest.Sum(make([]byte, page))
	got := r.do(pagertest.Job{Op: pagertest.OpTouch, Offsets: offsets, Threads: threads}).Sums
	for i, offset := range offsets {
		want := r.sums[offset/page]
		if offset >= removedFrom && offset < removedTo {
			want = zero
		}
		if got[i] != want {
			r.t.Fatalf("the page at %#x holds %#x, want %#x", offset, got[i], want)
		}
	}
}

// end ends the victim and returns what the pager says it did.
func (r *rig) end() pager.Stats {
	r.t.Helper()
	r.victim.End()
	stats, err := r.server.Wait()
	if err != nil || stats.End != pager.EndMachine {
		r.t.Fatalf("%v, %v", stats, err)
	}
	return stats
}

func (r *rig) client() pager.Client { return pager.Client{Path: r.spec.Control} }

func TestRandomAccessFromManyThreads(t *testing.T) {
	for _, around := range []int{1, 16} {
		s := spec(t, 2048)
		s.Around = around
		r := start(t, s)
		r.read(r.all(), 6, 0, 0)
		stats := r.end()
		if stats.Faults == 0 || stats.Copied+stats.Zeroed != 2048 {
			t.Errorf("around %d: %v", around, stats)
		}
		if _, err := os.Stat(s.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
}

func TestRemovedReadsAsZero(t *testing.T) {
	r := start(t, spec(t, 1024))
	half := r.spec.Layout.Size() / 2
	r.read(r.all()[:300], 2, 0, 0)
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: 16 * page, To: half - 16*page})
	r.read(r.all(), 4, 16*page, half-16*page)
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: 16 * page, To: half - 16*page})
	r.read(r.all(), 4, 16*page, half-16*page)
	if stats := r.end(); stats.Removed != 2*(512-32) {
		t.Errorf("%v", stats)
	}
}

func TestRemovalsWhileFaultsFly(t *testing.T) {
	r := start(t, spec(t, 1024))
	r.do(pagertest.Job{Op: pagertest.OpChurn, From: 0, To: 512 * page, Threads: 4, Rounds: 3000, Sums: r.sums[:512]})
	t.Log(r.end())
}

func TestPagerIsKilled(t *testing.T) {
	r := start(t, spec(t, 512))
	r.read(r.all()[:10], 1, 0, 0)
	if err := r.server.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := r.server.Wait(); err == nil {
		t.Fatal("a pager that was killed ended well")
	}
	// What it brought in stays; what it did not is waited for in vain, until whoever watches the pager ends the machine.
	r.read(r.all()[:10], 1, 0, 0)
	if err := r.victim.Begin(pagertest.Job{Op: pagertest.OpTouch, Offsets: r.all()}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := r.victim.Result()
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("memory without a pager was read: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	r.victim.End()
	<-ended
}

func TestMachineIsKilledInTheMiddle(t *testing.T) {
	for range 5 {
		s := spec(t, 4096)
		s.Stream, s.Around = true, 1
		r := start(t, s)
		if err := r.victim.Begin(pagertest.Job{Op: pagertest.OpTouch, Offsets: r.all(), Threads: 4}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
		r.end()
	}
}

func TestNobodyConnects(t *testing.T) {
	s := spec(t, 16)
	s.ConnectTimeout = 100 * time.Millisecond
	server, err := pagertest.StartServer(s)
	if err != nil {
		t.Fatal(err)
	}
	defer server.End()
	if _, err := server.Wait(); err == nil || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("%v", err)
	}
}

func TestFileIsCutShort(t *testing.T) {
	r := start(t, spec(t, 512))
	for _, path := range r.spec.Paths {
		if err := os.Truncate(path, page+100); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.victim.Begin(pagertest.Job{Op: pagertest.OpTouch, Offsets: r.all()}); err != nil {
		t.Fatal(err)
	}
	_, err := r.server.Wait()
	if err == nil || !strings.Contains(err.Error(), "memory file") || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("%v", err)
	}
}

func TestWorkingSetSavesFaults(t *testing.T) {
	s := spec(t, 2048)
	s.Record, s.Around = filepath.Join(t.TempDir(), "set"), 1
	first := start(t, s)
	needed := first.all()[:500]
	first.read(needed, 2, 0, 0)
	pages, err := first.client().StopRecording(t.Context())
	if err != nil || pages != 500 {
		t.Fatalf("%d pages, %v", pages, err)
	}
	first.read(first.all(), 2, 0, 0)
	if stats := first.end(); stats.Recorded != 500 || stats.Faults < 2048 {
		t.Errorf("%v", stats)
	}
	checkSet(t, s.Record, needed)

	s.Prefetch, s.Record = s.Record, ""
	second := start(t, s)
	await(t, second.client(), func(s pager.Stats) bool { return s.PrefetchDone })
	second.read(needed, 2, 0, 0)
	if stats := second.end(); stats.Faults != 0 || stats.PrefetchNote != "" || stats.Prefetched != 500 {
		t.Errorf("%v", stats)
	}
}

// checkSet compares what a record holds with the pages that were needed.
func checkSet(t *testing.T, path string, needed []uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	set, err := pager.DecodeWorkingSet(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	var got, want []uint32
	got = slices.Sorted(slices.Values(set.Pages))
	for _, offset := range needed {
		want = append(want, uint32(offset/page))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// await asks for stats until they are as wanted.
func await(t *testing.T, c pager.Client, ok func(pager.Stats) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		stats, err := c.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ok(stats) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestStreamsAllInAndLeaves(t *testing.T) {
	s := spec(t, 4096)
	s.Leave = true
	r := start(t, s)
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: 0, To: 100 * page})
	r.read(r.all()[:50], 2, 0, 100*page)
	if err := r.client().Stream(t.Context()); err != nil {
		t.Fatal(err)
	}
	stats, err := r.server.Wait()
	if err != nil || stats.End != pager.EndAllIn || stats.Streamed == 0 {
		t.Fatalf("%v, %v", stats, err)
	}
	r.read(r.all(), 4, 0, 100*page)
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: 0, To: 200 * page})
	r.read(r.all(), 4, 0, 200*page)
}
