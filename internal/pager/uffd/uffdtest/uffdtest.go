// Package uffdtest has a userfaultfd that is not one, for what the real one does not do on demand, and the checks that both pass.
package uffdtest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/pager/uffd"
)

// Page is the page size of the Machines that the suite runs with.
const Page = 4096

// Machine is memory that faults, seen from the inside: at least eight pages, all missing.
type Machine interface {
	// Memory is the same memory as its page-fault server sees it.
	Memory() uffd.Memory
	// Base is the address of the first page.
	Base() uint64
	// Touch reads the first byte of a page in a thread of its own, and sends it when it is there.
	Touch(page int) <-chan byte
	// Remove takes n pages away from a page on, as madvise(MADV_DONTNEED), in a thread of its own, and closes the channel when
	// that is done.
	Remove(page, n int) <-chan struct{}
}

const patience = 20 * time.Second

// Run checks what the page-fault server relies on. Each check gets a machine of its own.
func Run(t *testing.T, machine func(t *testing.T) Machine) {
	t.Helper()
	for name, check := range map[string]func(*testing.T, Machine){
		"fault and copy": faultAndCopy, "partial copy": partialCopy, "zero": zero, "removal comes first": removalComesFirst,
		"many wait for one page": manyWait, "unregister": unregister, "a range that is not registered": notRegistered,
		"wake": wake,
	} {
		t.Run(name, func(t *testing.T) { check(t, machine(t)) })
	}
}

func filledWith(b byte, pages int) []byte { return bytes.Repeat([]byte{b}, pages*Page) }

func at(m Machine, page int) uint64 { return m.Base() + uint64(page)*Page }

// next reads messages until one comes.
func next(t *testing.T, m uffd.Memory) uffd.Msg {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(m.FD()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		var msgs [1]uffd.Msg
		n, err := m.Read(msgs[:])
		if n == 1 {
			return msgs[0]
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("read: %d, %v", n, err)
		}
	}
	t.Fatal("no message came")
	return uffd.Msg{}
}

func wantFault(t *testing.T, m Machine, page int) {
	t.Helper()
	if msg := next(t, m.Memory()); msg.Kind != uffd.Fault || msg.Start != at(m, page) {
		t.Fatalf("message %+v, want a fault at %#x", msg, at(m, page))
	}
}

func wantByte(t *testing.T, c <-chan byte, want byte) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Errorf("read %#x, want %#x", got, want)
		}
	case <-time.After(patience):
		t.Fatal("the thread was not woken")
	}
}

func wantResult(t *testing.T, what string, n uint64, err error, wantN int, wantErr error) {
	t.Helper()
	if n != uint64(wantN)*Page || !errors.Is(err, wantErr) {
		t.Errorf("%s: %d pages, %v; want %d pages, %v", what, n/Page, err, wantN, wantErr)
	}
}

func faultAndCopy(t *testing.T, m Machine) {
	c := m.Touch(1)
	wantFault(t, m, 1)
	n, err := m.Memory().Copy(at(m, 1), filledWith('x', 1))
	wantResult(t, "copy", n, err, 1, nil)
	wantByte(t, c, 'x')
	n, err = m.Memory().Copy(at(m, 1), filledWith('y', 1))
	wantResult(t, "copy over a page that is there", n, err, 0, unix.EEXIST)
	wantByte(t, m.Touch(1), 'x')
}

func partialCopy(t *testing.T, m Machine) {
	n, err := m.Memory().Copy(at(m, 2), filledWith('x', 1))
	wantResult(t, "copy", n, err, 1, nil)
	n, err = m.Memory().Copy(at(m, 0), filledWith('y', 4))
	wantResult(t, "copy with a page there", n, err, 2, unix.EAGAIN)
	n, err = m.Memory().Copy(at(m, 2), filledWith('y', 2))
	wantResult(t, "the rest", n, err, 0, unix.EEXIST)
	for page, want := range []byte{'y', 'y', 'x'} {
		wantByte(t, m.Touch(page), want)
	}
}

func zero(t *testing.T, m Machine) {
	c := m.Touch(3)
	wantFault(t, m, 3)
	n, err := m.Memory().Zero(at(m, 2), 3*Page)
	wantResult(t, "zero", n, err, 3, nil)
	wantByte(t, c, 0)
	n, err = m.Memory().Zero(at(m, 4), Page)
	wantResult(t, "zero over a page that is there", n, err, 0, unix.EEXIST)
}

// again calls until the answer is not EAGAIN without progress.
func again(t *testing.T, call func() (uint64, error)) (uint64, error) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, err := call()
		if n > 0 || !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("EAGAIN does not end")
	return 0, nil
}

func removalComesFirst(t *testing.T, m Machine) {
	mem := m.Memory()
	n, err := mem.Copy(at(m, 0), filledWith('x', 3))
	wantResult(t, "copy", n, err, 3, nil)
	done := m.Remove(1, 2)
	fds := []unix.PollFd{{Fd: int32(mem.FD()), Events: unix.POLLIN}}
	if k, err := unix.Poll(fds, int(patience.Milliseconds())); k != 1 || err != nil {
		t.Fatalf("poll: %d, %v", k, err)
	}
	n, err = mem.Copy(at(m, 5), filledWith('y', 1))
	wantResult(t, "copy while a removal is unread", n, err, 0, unix.EAGAIN)
	n, err = mem.Zero(at(m, 5), Page)
	wantResult(t, "zero while a removal is unread", n, err, 0, unix.EAGAIN)
	if msg := next(t, mem); msg.Kind != uffd.Remove || msg.Start != at(m, 1) || msg.End != at(m, 3) {
		t.Fatalf("message %+v, want the removal of [%#x, %#x)", msg, at(m, 1), at(m, 3))
	}
	n, err = again(t, func() (uint64, error) { return mem.Copy(at(m, 5), filledWith('y', 1)) })
	wantResult(t, "copy after the removal was read", n, err, 1, nil)
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the removal does not end")
	}
	c := m.Touch(1)
	wantFault(t, m, 1)
	n, err = mem.Zero(at(m, 1), Page)
	wantResult(t, "zero after the removal", n, err, 1, nil)
	wantByte(t, c, 0)
	wantByte(t, m.Touch(0), 'x')
}

func manyWait(t *testing.T, m Machine) {
	var waiting []<-chan byte
	for range 3 {
		waiting = append(waiting, m.Touch(4))
		wantFault(t, m, 4)
	}
	n, err := m.Memory().Copy(at(m, 4), filledWith('x', 1))
	wantResult(t, "copy", n, err, 1, nil)
	for _, c := range waiting {
		wantByte(t, c, 'x')
	}
}

func unregister(t *testing.T, m Machine) {
	n, err := m.Memory().Copy(at(m, 0), filledWith('x', 1))
	wantResult(t, "copy", n, err, 1, nil)
	c := m.Touch(1)
	wantFault(t, m, 1)
	if err := m.Memory().Unregister(at(m, 0), 8*Page); err != nil {
		t.Fatal(err)
	}
	wantByte(t, c, 0)
	wantByte(t, m.Touch(0), 'x')
	wantByte(t, m.Touch(2), 0)
	n, err = m.Memory().Zero(at(m, 3), Page)
	wantResult(t, "zero after unregistering", n, err, 0, unix.ENOENT)
}

func notRegistered(t *testing.T, m Machine) {
	n, err := m.Memory().Copy(at(m, -1000), filledWith('x', 1))
	wantResult(t, "copy", n, err, 0, unix.ENOENT)
	n, err = m.Memory().Zero(at(m, -1000), Page)
	wantResult(t, "zero", n, err, 0, unix.ENOENT)
	var msgs [1]uffd.Msg
	if n, err := m.Memory().Read(msgs[:]); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("read without messages: %d, %v; want EAGAIN", n, err)
	}
}

// wake has a thread look again at a page that is not there: it faults once more.
func wake(t *testing.T, m Machine) {
	c := m.Touch(6)
	wantFault(t, m, 6)
	if err := m.Memory().Wake(at(m, 6), Page); err != nil {
		t.Fatal(err)
	}
	wantFault(t, m, 6)
	n, err := m.Memory().Copy(at(m, 6), filledWith('x', 1))
	wantResult(t, "copy", n, err, 1, nil)
	wantByte(t, c, 'x')
}
