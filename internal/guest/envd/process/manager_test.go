package process

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

func TestFollowers(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Subscriptions = 2 })
	s := shell(t, "echo first; read line; echo \"$line\"; exit 9")
	s.Stdin = true
	tag := "t"
	s.Tag = &tag
	first := start(t, m, s)
	expect(t, first, "first")
	second, err := m.Join(Selector{Tag: &tag})
	if err != nil {
		t.Fatal(err)
	}
	if second.PID() != first.PID() {
		t.Errorf("pids %d and %d", first.PID(), second.PID())
	}
	if _, err := m.Join(Selector{PID: first.PID()}); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a third follower: got %v", err)
	}
	first.Close()
	first.Close()
	third, err := m.Join(Selector{PID: first.PID()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Get(Selector{Tag: &tag})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(t.Context(), []byte("hello\n"), false); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []*Subscription{second, third} {
		if out, exit := collect(t, sub); out[Stdout] != "hello\n" || exit.Code != 9 {
			t.Errorf("got %q, %+v", out, exit)
		}
	}
}

func TestEnded(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Ended = 2 })
	tags := []string{"a", "b", "c"}
	var pids []int
	for i := range tags {
		s := shell(t, "exit "+string(rune('1'+i)))
		s.Tag = &tags[i]
		sub := start(t, m, s)
		collect(t, sub)
		pids = append(pids, sub.PID())
	}
	for i, sel := range []Selector{{PID: pids[1]}, {Tag: &tags[2]}} {
		sub, err := m.Join(sel)
		if err != nil {
			t.Fatal(err)
		}
		if _, exit := collect(t, sub); exit.Code != i+2 {
			t.Errorf("%v: got %+v", sel, exit)
		}
		sub.Close()
		if _, err := m.Get(sel); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("an ended process is found: %v", err)
		}
	}
	for _, sel := range []Selector{{PID: pids[0]}, {Tag: &tags[0]}, {PID: 1 << 22}} {
		if _, err := m.Join(sel); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%v: got %v", sel, err)
		}
	}
	m.limits.Retain = 0
	if _, err := m.Join(Selector{Tag: &tags[2]}); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("after the time: got %v", err)
	}
}

func TestTagMeansTheNewest(t *testing.T) {
	m := newManager(t, nil)
	tag := "same"
	s := shell(t, "sleep 1000")
	s.Tag = &tag
	start(t, m, s)
	newest := start(t, m, s)
	if p, err := m.Get(Selector{Tag: &tag}); err != nil || p.PID() != newest.PID() {
		t.Errorf("got %v, %v", p, err)
	}
	if list := m.List(); len(list) != 2 || list[1].PID() != newest.PID() {
		t.Errorf("got %v", list)
	}
}

func TestProcessLimit(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Processes = 2 })
	start(t, m, shell(t, "sleep 1000"))
	sub := start(t, m, shell(t, "sleep 1000"))
	if _, err := m.Start(shell(t, "exit 0")); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("got %v", err)
	}
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	collect(t, sub)
	collect(t, start(t, m, shell(t, "exit 0")))
}

func TestClose(t *testing.T) {
	m := NewManager(DefaultLimits())
	sub := start(t, m, shell(t, "trap '' TERM; echo ready; while :; do sleep 1000; done"))
	expect(t, sub, "ready")
	m.Close()
	if _, exit := collect(t, sub); exit.Status != "signal: killed" {
		t.Errorf("got %+v", exit)
	}
	if _, err := m.Start(shell(t, "exit 0")); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("start after close: %v", err)
	}
}

// TestStoppedReader shows that a process whose reader stopped waits, that this costs little memory, that it can be killed, and that
// its deadline holds.
func TestStoppedReader(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Stall, l.Grace = time.Millisecond, 10*time.Millisecond })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 20
	var subs []*Subscription
	for range n {
		s := shell(t, "exec yes")
		s.Deadline = time.Now().Add(2 * time.Second)
		subs = append(subs, start(t, m, s))
	}
	for _, sub := range subs {
		eventually(t, "the queue is full", sub.full)
	}
	time.Sleep(500 * time.Millisecond) // long enough for gigabytes
	runtime.GC()
	runtime.ReadMemStats(&after)
	const each = queueChunks*chunkBytes + 4*chunkBytes
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > n*each*3/2 {
		t.Errorf("%d stopped readers hold %d KiB, want at most %d KiB each", n, grown>>10, each>>10)
	}
	for _, sub := range subs {
		select {
		case <-sub.Dropped():
			t.Error("a reader that holds up nobody was dropped")
		default:
		}
		out, exit := collect(t, sub)
		if len(out[Stdout]) == 0 || strings.Trim(out[Stdout], "y\n") != "" || !exit.Expired {
			t.Errorf("got %d bytes, %+v", len(out[Stdout]), exit)
		}
	}
}

// TestSlowReader shows that a slow reader loses nothing.
func TestSlowReader(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Stall = time.Millisecond })
	const size = 3 << 20
	sub := start(t, m, shell(t, "head -c 3145728 /dev/zero"))
	got := 0
	for c := range sub.C() {
		got += len(c.Data)
		time.Sleep(time.Millisecond)
	}
	if got != size {
		t.Errorf("got %d bytes, want %d", got, size)
	}
}

// TestDeadReader shows that a reader that stopped can't hold up another for ever, and is told so.
func TestDeadReader(t *testing.T) {
	m := newManager(t, func(l *Limits) { l.Stall = 20 * time.Millisecond })
	dead := start(t, m, shell(t, "exec head -c 3145728 /dev/zero"))
	live, err := m.Join(Selector{PID: dead.PID()})
	if err != nil {
		t.Fatal(err)
	}
	collect(t, live)
	select {
	case <-dead.Dropped():
	default:
		t.Error("the dead reader was not dropped")
	}
	dead.Close()
}

// TestNoReader shows that a process does not wait for a reader that has gone.
func TestNoReader(t *testing.T) {
	m := newManager(t, nil)
	sub := start(t, m, shell(t, "exec head -c 3145728 /dev/zero"))
	sub.Close()
	eventually(t, "the process ends", func() bool { return len(m.List()) == 0 })
}
