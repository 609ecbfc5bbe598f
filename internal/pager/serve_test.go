package pager

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager/uffd"
	"wrenn.dev/wrenn/internal/pager/uffd/uffdtest"
)

const base = 1 << 30

// tb is what tests and property tests have in common.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// box is a server over memory that is a map.
type box struct {
	t    tb
	s    *server
	fake *uffdtest.Fake
	wake *waker
	end  int // the machine's end of the connection

	requests chan request
	result   chan error
	cancel   context.CancelCauseFunc
	close    func()
}

// newBox makes one that is not serving yet. Without regions there is one with all memory at base.
func newBox(t tb, c Config, ahead []uint32, regions ...Region) *box {
	t.Helper()
	if regions == nil {
		regions = []Region{{base, c.Layout.Size(), 0, smallPage}}
	}
	var ranges []uffdtest.Range
	for _, r := range regions {
		ranges = append(ranges, uffdtest.Range{Start: r.Base, Length: r.Size, PageSize: r.PageSize})
	}
	fake, err := uffdtest.NewFake(ranges...)
	must(t, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	src, err := newSource(c.Layout, c.Files)
	must(t, err)
	w, err := newWaker()
	must(t, err)
	c.Listen.Path = "-"
	must(t, c.check())
	stats := &Stats{PrefetchDone: len(ahead) == 0}
	set, err := openSet(c, stats)
	must(t, err)
	set.ahead = ahead
	stats.PrefetchDone = len(ahead) == 0
	p := &peer{pair[0], fake, regions}
	s, err := newServer(c, src, set, stats, p)
	must(t, err)
	b := &box{t: t, s: s, fake: fake, wake: w, end: pair[1], requests: make(chan request, 1), result: make(chan error, 1)}
	b.close = func() {
		s.close()
		set.close()
		p.close()
		w.close()
	}
	return b
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts to serve.
func (b *box) serve() *box {
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(ctx, b.wake.wake)
	b.cancel = cancel
	go func() {
		end, err := b.s.serve(ctx, b.wake, b.requests)
		b.s.stats.End = end
		b.result <- err
	}()
	return b
}

// wait waits for the server's end.
func (b *box) wait() error {
	b.t.Helper()
	select {
	case err := <-b.result:
		return err
	case <-time.After(20 * time.Second):
		b.t.Fatal("the server does not end")
		return nil
	}
}

// finish ends the machine, and the server with it.
func (b *box) finish() Stats {
	b.t.Helper()
	must(b.t, unix.Close(b.end))
	must(b.t, b.wait())
	b.close()
	return *b.s.stats
}

// reads touches a page and compares its first byte.
func (b *box) reads(page uint64, want byte) {
	b.t.Helper()
	gets(b.t, b.fake.TouchAt(base+page*smallPage), want)
}

func gets(t tb, c <-chan byte, want byte) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Fatalf("read %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the fault was not answered")
	}
}

// file makes a Config for memory that is one file.
func file(t *testing.T, values string) Config {
	t.Helper()
	return Config{Layout: layout{{0, 0, uint64(len(values)) * smallPage}}, Files: []*os.File{pages(t, values)}}
}

func TestFaultBringsNeighboursFromTheSamePlace(t *testing.T) {
	f := pages(t, "abcdefghijklmnopqrstuvwxyz")
	// Pages 0-1 from the file, 2-3 zero, 4-15 from the file in one extent, 16-17 from elsewhere in it.
	l := layout{{0, 0, 2 * 4096}, {-1, 0, 2 * 4096}, {0, 2 * 4096, 12 * 4096}, {0, 20 * 4096, 2 * 4096}}
	b := newBox(t, Config{Layout: l, Files: []*os.File{f}, Around: 8}, nil).serve()
	for _, step := range []struct {
		page  uint64
		want  byte
		there []uint64
	}{
		{1, 'b', []uint64{0, 1}},
		{2, 0, []uint64{0, 1, 2, 3}},
		{6, 'e', []uint64{0, 1, 2, 3, 4, 5, 6, 7}},
		{9, 'h', []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	} {
		b.reads(step.page, step.want)
		for p := range uint64(18) {
			content, _ := b.fake.Page(base + p*smallPage)
			if want := p < uint64(len(step.there)); (content != nil) != want {
				t.Errorf("after page %d: page %d is there: %v", step.page, p, !want)
			}
		}
	}
	if stats := b.finish(); stats.Faults != 4 || stats.Copied != 14 || stats.Zeroed != 2 || stats.Present != 16 {
		t.Errorf("%v", stats)
	}
}

func TestRemovalIsAppliedBeforeFaultsThatCameOutFirst(t *testing.T) {
	b := newBox(t, file(t, "abcdefgh"), nil)
	removed := b.fake.Remove(2, 2)
	touched := b.fake.Touch(2)
	other := b.fake.Touch(5)
	b.serve()
	<-removed
	gets(t, touched, 0)
	gets(t, other, 'f')
	b.reads(3, 0)
	b.reads(4, 'e')
	b.finish()
}

func TestNeighboursThatWereTakenAwayStayAway(t *testing.T) {
	c := file(t, "abcdefghijklmnop")
	b := newBox(t, c, nil).serve()
	<-removed(b, 4, 2)
	b.reads(7, 'h')
	if content, _ := b.fake.Page(base + 4*smallPage); content != nil {
		t.Error("a page that was taken away came back by itself")
	}
	b.reads(5, 0)
	b.finish()
}

// removed takes pages away. The fake's removal ends with the next call, so there is a fault behind it.
func removed(b *box, page, n int) <-chan struct{} {
	done := b.fake.Remove(page, n)
	b.reads(0, 'a')
	b.fake.Touch(15)
	return done
}

func TestRegionsAndHugePages(t *testing.T) {
	small := pages(t, "ab")
	l := layout{{0, 0, 2 * 4096}, {-1, 0, hugePage - 2*4096}, {-1, 0, hugePage}, {-1, 0, 4096}, {0, 4096, 4096}, {-1, 0, hugePage - 2*4096}}
	regions := []Region{{base, hugePage, 0, smallPage}, {2 * base, 2 * hugePage, hugePage, hugePage}}
	b := newBox(t, Config{Layout: l, Files: []*os.File{small}}, []uint32{512, 1024 + 7}, regions...).serve()
	gets(t, b.fake.TouchAt(base+4096), 'b')
	gets(t, b.fake.TouchAt(base+8192), 0)
	gets(t, b.fake.TouchAt(2*base+100), 0)
	gets(t, b.fake.TouchAt(2*base+hugePage+4096), 'b')
	content, _ := b.fake.Page(2*base + hugePage)
	want := make([]byte, hugePage)
	copy(want[4096:], bytes.Repeat([]byte("b"), 4096))
	if !bytes.Equal(content, want) {
		t.Error("a huge page of several pieces differs")
	}
	done := b.fake.RemoveAt(2*base+hugePage, 2*base+2*hugePage)
	gets(t, b.fake.TouchAt(base+300*4096), 0)
	<-done
	gets(t, b.fake.TouchAt(2*base+hugePage+4096), 0)
	b.finish()
}

func TestPrefetchJoinsRuns(t *testing.T) {
	c := file(t, "abcdefghijklmnop")
	b := newBox(t, c, []uint32{7, 3, 4, 15, 5, 3, 1 << 20})
	b.serve()
	for !b.stats().PrefetchDone {
		time.Sleep(time.Millisecond)
	}
	_, copies := b.fake.Page(base)
	if copies != 3 { // 3-5, 7, 15
		t.Errorf("%d calls", copies)
	}
	if stats := b.finish(); stats.Prefetched != 5 || stats.Faults != 0 {
		t.Errorf("%v", stats)
	}
}

// stats asks the server.
func (b *box) stats() Stats {
	r := request{opStats, make(chan Reply, 1)}
	b.requests <- r
	b.wake.wake()
	return *(<-r.reply).Stats
}

func TestStreamsAndLeaves(t *testing.T) {
	f := pages(t, "abcdefgh")
	l := layout{{0, 0, 4 * 4096}, {-1, 0, 1 << 30}, {0, 4 * 4096, 4 * 4096}}
	b := newBox(t, Config{Layout: l, Files: []*os.File{f}, Stream: true, Leave: true}, nil)
	done := b.fake.Remove(1, 1)
	b.serve()
	must(t, b.wait())
	<-done
	for page, want := range map[uint64]byte{0: 'a', 1: 0, 3: 'd', 4: 0, 4 + 1<<18: 'e', 7 + 1<<18: 'h'} {
		b.reads(page, want)
	}
	if b.s.stats.End != EndAllIn || b.s.stats.Streamed != 7 {
		t.Errorf("%v", b.s.stats)
	}
	b.close()
}

// TestLeavingWaitsForRemovals has a removal under way when the memory is let go of: its thread must not be left asleep.
func TestLeavingWaitsForRemovals(t *testing.T) {
	b := newBox(t, file(t, "abcd"), nil)
	must(t, b.s.letGo())
	done := b.fake.Remove(0, 1)
	b.serve()
	must(t, b.wait())
	select {
	case <-done:
	default:
		t.Error("the removal still waits")
	}
	b.close()
}

func TestEnds(t *testing.T) {
	why := errors.New("enough")
	var fork [2]int
	must(t, unix.Pipe2(fork[:], unix.O_CLOEXEC))
	for name, tt := range map[string]struct {
		do   func(b *box)
		want error
	}{
		"the machine goes":          {func(b *box) { must(t, unix.Close(b.end)) }, nil},
		"its memory goes first":     {func(b *box) { b.fake.Kill(); b.fake.Touch(1) }, nil},
		"the context ends":          {func(b *box) { b.cancel(why) }, why},
		"a fault outside":           {func(b *box) { b.fake.Inject(uffd.Msg{Kind: uffd.Fault, Start: 4096}) }, errs.ErrInvalid},
		"a message of another kind": {func(b *box) { b.fake.Inject(uffd.Msg{Kind: uffd.Remap}) }, errs.ErrInvalid},
		"a fork":                    {func(b *box) { b.fake.Inject(uffd.Msg{Kind: uffd.Fork, FD: fork[0]}) }, errs.ErrInvalid},
		"what is not registered": {func(b *box) {
			must(t, b.fake.Unregister(base, 1<<20))
			b.fake.Inject(uffd.Msg{Kind: uffd.Fault, Start: base})
		}, errs.ErrInvalid},
	} {
		b := newBox(t, file(t, "abcd"), nil).serve()
		tt.do(b)
		if err := b.wait(); !errors.Is(err, tt.want) || tt.want == nil && b.s.stats.End != EndMachine {
			t.Errorf("%s: %v", name, err)
		}
		b.close()
	}
	if _, err := unix.Write(fork[1], []byte{1}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("the descriptor of the fork is still open: %v", err)
	}
	must(t, unix.Close(fork[1]))
}

func TestFaultsThatWaitAreBounded(t *testing.T) {
	b := newBox(t, file(t, "abcd"), nil)
	b.s.pending = make([]pending, maxPending)
	b.fake.Touch(0)
	if err := b.s.read(); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("%v", err)
	}
	b.close()
}

func TestCommands(t *testing.T) {
	c := file(t, "abcd")
	c.Record = t.TempDir() + "/set"
	b := newBox(t, c, nil)
	must(t, b.s.fault(base+smallPage))
	if r := b.s.command(opRecordStop); r.Error != "" || *r.Pages != 1 {
		t.Errorf("%+v", r)
	}
	if r := b.s.command(opRecordStop); !errors.Is(r.err(), errs.ErrFailedPrecondition) {
		t.Errorf("twice: %+v", r)
	}
	if r := b.s.command("dance"); !errors.Is(r.err(), errs.ErrInvalid) {
		t.Errorf("%+v", r)
	}
	if r := b.s.command(opStream); r.err() != nil || !b.s.streaming {
		t.Errorf("%+v", r)
	}
	if r := b.s.command(opStats); r.Stats.Present != 1 || r.Stats.Recorded != 1 {
		t.Errorf("%+v", r)
	}
	b.close()
}

// TestAnyOrder touches and removes at random, with all that works ahead switched on, and compares each page with a model.
func TestAnyOrder(t *testing.T) {
	const values = "abcdefghijklmnopqrstuvwxyzABCDEF"
	f := pages(t, values)
	rapid.Check(t, func(t *rapid.T) {
		l, model := layout{}, []byte{}
		for len(model) < 40 {
			n := rapid.IntRange(1, 8).Draw(t, "pages")
			e := Extent{File: -1, Length: uint64(n) * smallPage}
			from := rapid.IntRange(-10, len(values)-n).Draw(t, "from")
			if from >= 0 {
				e.File, e.Offset = 0, int64(from)*smallPage
				model = append(model, values[from:from+n]...)
			} else {
				model = append(model, make([]byte, n)...)
			}
			l = append(l, e)
		}
		ahead := rapid.SliceOfN(rapid.Uint32Range(0, uint32(len(model)-1)), 0, 20).Draw(t, "ahead")
		around := 1 << rapid.IntRange(0, 5).Draw(t, "around")
		c := Config{Layout: l, Files: []*os.File{f}, Around: around, Stream: rapid.Bool().Draw(t, "stream")}
		b := newBox(t, c, ahead).serve()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			page := rapid.IntRange(0, len(model)-1).Draw(t, "page")
			if n := rapid.IntRange(-5, 3).Draw(t, "remove"); n > 0 && page+n <= len(model) {
				b.fake.Remove(page, n)
				clear(model[page : page+n])
				for b.fake.Waiting() { // as madvise does
					time.Sleep(time.Microsecond)
				}
			}
			b.reads(uint64(page), model[page])
		}
		b.finish()
	})
}

// TestRests has the server wait without an end when there is nothing to do, after it has given back what it used.
func TestRests(t *testing.T) {
	b := newBox(t, file(t, "abcd"), []uint32{1})
	for b.s.stats.Prefetched == 0 || !b.s.stats.PrefetchDone {
		_, err := b.s.turn()
		must(t, err)
	}
	b.s.large = true
	for wait := b.s.patience(); wait != forever; wait = b.s.patience() {
		time.Sleep(wait)
		_, err := b.s.turn()
		must(t, err)
	}
	if b.s.untidy() {
		t.Error("it rests before it has tidied up")
	}
	must(t, b.s.fault(base))
	if content, _ := b.fake.Page(base); content[0] != 'a' {
		t.Error("the buffer does not work after it was emptied")
	}
	b.close()
}
