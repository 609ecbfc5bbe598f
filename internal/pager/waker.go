package pager

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// waker is an eventfd that gets the serving goroutine out of its poll.
type waker struct {
	mu sync.Mutex
	fd int // -1 once closed
}

func newWaker() (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &waker{fd: fd}, nil
}

// wake makes the next or the present poll return. It may be called by anybody, also after close.
func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		one := [8]byte{1, 1} // any number but zero, in either byte order
		_, _ = unix.Write(w.fd, one[:])
	}
}

// drain makes a poll wait again.
func (w *waker) drain() {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:])
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = unix.Close(w.fd)
	w.fd = -1
}

// forever is a poll without an end.
const forever = time.Duration(-1)

// poll waits until one of the descriptors is ready or the time is over, and says how many are. A signal is no reason to return.
func poll(fds []unix.PollFd, timeout time.Duration) (int, error) {
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	for {
		n, err := unix.Ppoll(fds, ts, nil)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// yield lets another thread have the processor.
func yield() { _, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
