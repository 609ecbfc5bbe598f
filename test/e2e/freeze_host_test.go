//go:build hosttest

package e2e

import (
	"math"
	"strconv"
	"testing"
	"time"
)

// TestWhatAProcessHoldsSurvivesPauses freezes one sandbox five times. What its process holds goes on: memory that was written, memory
// that was zeroed, a file without a name, a port, its output. One of the freezes is long, and the clock is right after it.
func TestWhatAProcessHoldsSurvivesPauses(t *testing.T) {
	nothingLeft(t)
	b := create(t, here(t), base)
	s := b.follow(0)
	s.next()
	first := b.ask("kept", "not zero")
	kept, notZero := first[0], first[1]
	if notZero != strconv.Itoa(8<<20) {
		t.Fatalf("%s bytes are not zero before anything", notZero)
	}
	for round := 1; round <= 5; round++ {
		counted := s.next()
		b.pause()
		s.cut()
		if round == 5 {
			time.Sleep(time.Minute) // the clock's error grows with the time that it stood
		}
		b.resume()
		got := b.ask("count", "file", "kept", "not zero")
		if n, err := strconv.Atoi(got[0]); err != nil || n < counted {
			t.Errorf("after %d pauses it has counted to %s, and before to %d", round, got[0], counted)
		}
		if got[1] != "what a file without a name says" || got[2] != kept || got[3] != notZero {
			t.Errorf("after %d pauses: file %q, memory %s, want %s, and %s bytes not zero, want %s", round, got[1], got[2], kept, got[3], notZero)
		}
		s = b.follow(s.pid)
		if n := s.next(); n <= counted {
			t.Errorf("after %d pauses the stream goes on with %d, and ended with %d", round, n, counted)
		}
		switch round {
		case 1: // what was frozen with a pattern is zeroed: three generations later it is zero still
			b.ask("wipe")
			notZero = "0"
		case 3:
			kept = b.ask("rewrite")[0]
		}
	}
	if off := clockError(b); off > clockLimit.Seconds() {
		t.Errorf("the guest's clock is off by %.3f s after a freeze of a minute, want at most %v", off, clockLimit)
	}
	s.cut()
}

// clockError is how far off the guest's clock is, in seconds: the best of some answers, each between two readings of the host's.
func clockError(b *box) float64 {
	b.t.Helper()
	best := math.Inf(1)
	for range 10 {
		before := time.Now()
		answer := b.ask("time")[0]
		after := time.Now()
		guest, err := strconv.ParseFloat(answer, 64)
		if err != nil {
			b.t.Fatalf("answer %q", answer)
		}
		off := math.Abs(guest - float64(before.Add(after.Sub(before)/2).UnixNano())/1e9)
		b.t.Logf("round trip %v, clock off by %.3f s", after.Sub(before), off)
		best = min(best, off)
	}
	return best
}
