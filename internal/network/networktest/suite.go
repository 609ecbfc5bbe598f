// Package networktest is the suite that every implementation of network.Driver passes, and a fake one for the tests of
// whoever uses a driver.
package networktest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
)

// Slots is how many slots the driver under test must have.
const Slots = 3

// patience bounds what should not take long; an emulated host is slow.
const patience = 2 * time.Minute

// Host is a driver to test, with a way to put a guest into its slots.
type Host struct {
	// Driver has exactly Slots slots, all free.
	Driver network.Driver
	// Serve starts a guest in the slot that echoes what it receives on the TCP port and refuses all other ports. It ends
	// with the test.
	Serve func(t *testing.T, id string, slot network.Slot, port int)
}

// Run runs the suite. Each case gets a host of its own from setup; a case leaves its driver without a slot taken.
func Run(t *testing.T, setup func(t *testing.T) Host) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, h Host)
	}{
		{"acquire and release", testAcquire},
		{"bad id", testBadID},
		{"one slot for one id", testTwice},
		{"all slots taken", testExhausted},
		{"side by side", testSideBySide},
		{"release again", testReleaseAgain},
		{"ended context", testEnded},
		{"close", testClose},
		{"dial", testDial},
		{"dial nobody", testDialNobody},
		{"dial two guests", testDialTwo},
		{"usage", testUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := setup(t)
			c.test(t, h)
			if left := list(t, h.Driver); len(left) > 0 && !t.Failed() {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func uid(slot int) int { return 1900000000 + slot }

func list(t *testing.T, d network.Driver) []string {
	t.Helper()
	ids, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// acquire takes a slot and gives it back when the test ends.
func acquire(t *testing.T, d network.Driver) (string, network.Slot) {
	t.Helper()
	sandbox := id.New()
	s, err := d.Acquire(t.Context(), sandbox, network.Policy{Internet: true}, uid)
	if err != nil {
		t.Fatal(err)
	}
	return sandbox, s
}

func release(t *testing.T, d network.Driver, sandbox string) {
	t.Helper()
	if err := d.Release(context.WithoutCancel(t.Context()), sandbox); err != nil {
		t.Error(err)
	}
}

func testAcquire(t *testing.T, h Host) {
	var asked []int
	sandbox := id.New()
	s, err := h.Driver.Acquire(t.Context(), sandbox, network.Policy{}, func(slot int) int {
		asked = append(asked, slot)
		return uid(slot)
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Index < 0 || s.Index >= Slots || s.NetNS == "" || s.TAP != network.TAPName || !s.HostAddr.Is4() {
		t.Errorf("slot %+v", s)
	}
	if !slices.Equal(asked, []int{s.Index}) {
		t.Errorf("the owner was asked for slots %v, want %d once", asked, s.Index)
	}
	if got := list(t, h.Driver); !slices.Equal(got, []string{sandbox}) {
		t.Errorf("List = %v, want %s", got, sandbox)
	}
	release(t, h.Driver, sandbox)
}

func testBadID(t *testing.T, h Host) {
	for _, bad := range []string{"", "x", "../x", id.Prefix} {
		if _, err := h.Driver.Acquire(t.Context(), bad, network.Policy{}, uid); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Acquire(%q): %v, want ErrInvalid", bad, err)
		}
		if err := h.Driver.Release(t.Context(), bad); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Release(%q): %v, want ErrInvalid", bad, err)
		}
	}
}

func testTwice(t *testing.T, h Host) {
	sandbox, s := acquire(t, h.Driver)
	defer release(t, h.Driver, sandbox)
	if _, err := h.Driver.Acquire(t.Context(), sandbox, network.Policy{}, uid); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("second Acquire: %v, want ErrAlreadyExists", err)
	}
	// The first is whole: the failure took nothing from it.
	h.Serve(t, sandbox, s, 7)
	echo(t, h.Driver, sandbox, 7)
}

func testExhausted(t *testing.T, h Host) {
	var ids []string
	for range Slots {
		sandbox, _ := acquire(t, h.Driver)
		ids = append(ids, sandbox)
	}
	one := id.New()
	if _, err := h.Driver.Acquire(t.Context(), one, network.Policy{}, uid); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("Acquire without a free slot: %v, want ErrResourceExhausted", err)
	}
	if slices.Contains(list(t, h.Driver), one) {
		t.Error("the refused one has something")
	}
	release(t, h.Driver, ids[1])
	if _, err := h.Driver.Acquire(t.Context(), one, network.Policy{}, uid); err != nil {
		t.Errorf("Acquire after a release: %v", err)
	}
	for _, sandbox := range append(ids, one) {
		release(t, h.Driver, sandbox)
	}
}

func testSideBySide(t *testing.T, h Host) {
	for range 3 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[int]string{}
		for range Slots {
			wg.Go(func() {
				sandbox := id.New()
				s, err := h.Driver.Acquire(t.Context(), sandbox, network.Policy{}, uid)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if seen[s.Index] != "" {
					t.Errorf("slot %d was given twice", s.Index)
				}
				seen[s.Index] = sandbox
			})
		}
		wg.Wait()
		for _, sandbox := range seen {
			wg.Go(func() { release(t, h.Driver, sandbox) })
		}
		wg.Wait()
	}
}

func testReleaseAgain(t *testing.T, h Host) {
	release(t, h.Driver, id.New()) // never had one
	sandbox, s := acquire(t, h.Driver)
	other, _ := acquire(t, h.Driver)
	release(t, h.Driver, sandbox)
	release(t, h.Driver, sandbox)
	if got := list(t, h.Driver); !slices.Equal(got, []string{other}) {
		t.Errorf("List = %v, want %s", got, other)
	}
	again, s2 := acquire(t, h.Driver)
	if s2.Index != s.Index {
		t.Logf("slot %d was not the next to be given again", s.Index)
	}
	release(t, h.Driver, sandbox) // must not touch the slot's new sandbox
	if got := list(t, h.Driver); !slices.Contains(got, again) {
		t.Errorf("List = %v, without %s", got, again)
	}
	release(t, h.Driver, again)
	release(t, h.Driver, other)
}

func testEnded(t *testing.T, h Host) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the caller hung up")
	cancel(reason)
	if _, err := h.Driver.Acquire(ctx, id.New(), network.Policy{}, uid); !errors.Is(err, reason) {
		t.Errorf("Acquire: %v, want the context's cause", err)
	}
	sandbox, _ := acquire(t, h.Driver)
	defer release(t, h.Driver, sandbox)
	if _, err := h.Driver.Dial(ctx, sandbox, 7); !errors.Is(err, reason) {
		t.Errorf("Dial: %v, want the context's cause", err)
	}
	// No guest is there to answer.
	ctx, cancel2 := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, reason)
	defer cancel2()
	if _, err := h.Driver.Dial(ctx, sandbox, 7); !errors.Is(err, reason) || !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("Dial: %v, want ErrUnavailable with the context's cause", err)
	}
}

func testClose(t *testing.T, h Host) {
	if err := h.Driver.Close(t.Context()); err != nil {
		t.Error(err)
	}
	sandbox, s := acquire(t, h.Driver)
	if err := h.Driver.Close(t.Context()); err != nil {
		t.Error(err)
	}
	h.Serve(t, sandbox, s, 7)
	echo(t, h.Driver, sandbox, 7)
	release(t, h.Driver, sandbox)
	for range 2 {
		if err := h.Driver.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func testDial(t *testing.T, h Host) {
	sandbox, s := acquire(t, h.Driver)
	defer release(t, h.Driver, sandbox)
	h.Serve(t, sandbox, s, 49983)
	for range 3 {
		echo(t, h.Driver, sandbox, 49983)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := h.Driver.Dial(ctx, sandbox, 49984)
	if !errors.Is(err, errs.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || ctx.Err() != nil {
		t.Errorf("a port that nobody listens on: %v, want ErrUnavailable and ECONNREFUSED", err)
	}
	for _, port := range []int{-1, 0, 65536} {
		if _, err := h.Driver.Dial(ctx, sandbox, port); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("port %d: %v, want ErrInvalid", port, err)
		}
	}
}

func testDialNobody(t *testing.T, h Host) {
	sandbox, _ := acquire(t, h.Driver)
	release(t, h.Driver, sandbox)
	for _, nobody := range []string{sandbox, id.New()} {
		if _, err := h.Driver.Dial(t.Context(), nobody, 7); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("Dial: %v, want ErrNotFound", err)
		}
	}
}

// testDialTwo has two guests under the same address: each is reached by its id.
func testDialTwo(t *testing.T, h Host) {
	a, sa := acquire(t, h.Driver)
	defer release(t, h.Driver, a)
	b, sb := acquire(t, h.Driver)
	defer release(t, h.Driver, b)
	h.Serve(t, a, sa, 7)
	h.Serve(t, b, sb, 8)
	echo(t, h.Driver, a, 7)
	echo(t, h.Driver, b, 8)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for sandbox, port := range map[string]int{a: 8, b: 7} {
		if _, err := h.Driver.Dial(ctx, sandbox, port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d of the other guest: %v, want ECONNREFUSED", port, err)
		}
	}
}

// echo sends a line to the guest and waits for it to come back.
func echo(t *testing.T, d network.Driver, sandbox string, port int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := d.Dial(ctx, sandbox, port)
	if err != nil {
		t.Errorf("Dial(%s, %d): %v", sandbox, port, err)
		return
	}
	defer conn.Close()
	if err := exchange(conn); err != nil {
		t.Error(err)
	}
}

func exchange(conn net.Conn) error {
	const line = "is anybody there?\n"
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, line); err != nil {
		return err
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != line {
		return errors.New("the echo differs: " + string(got))
	}
	return nil
}

// Echo answers one connection with what it receives: the Serve of a Host.
func Echo(conn net.Conn) {
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
}

func testUsage(t *testing.T, h Host) {
	meter, ok := h.Driver.(network.Meter)
	if !ok {
		return // it need not be one
	}
	sandbox, _ := acquire(t, h.Driver)
	if _, err := meter.Usage(t.Context(), sandbox); err != nil {
		t.Error(err)
	}
	if _, err := meter.Usage(t.Context(), id.New()); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("usage of nobody: %v, want ErrNotFound", err)
	}
	if err := h.Driver.Release(t.Context(), sandbox); err != nil {
		t.Fatal(err)
	}
	if _, err := meter.Usage(t.Context(), sandbox); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("usage of one that is gone: %v, want ErrNotFound", err)
	}
}
