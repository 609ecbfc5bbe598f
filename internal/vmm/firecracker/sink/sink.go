// Package sink takes what a process that is not trusted writes, and keeps the end of it.
//
// The process writes into a named pipe and has both ends of it open itself, so its writes never block it, never end it with
// SIGPIPE, and never fill a disk: what nobody has read beyond the pipe's own 64 KiB is dropped. That holds whether or not
// the reader lives. The reader takes a bounded amount in a second, however much is written, and keeps it in memory.
package sink

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Capacity is how many of the last bytes a Sink keeps, and the most it takes at a time.
	Capacity = 64 << 10
	// pause is what a Sink waits after each piece that it took: a writer that floods the pipe costs the reader four wake-ups a
	// second.
	pause = 250 * time.Millisecond
)

// Sink reads a pipe and keeps the end of what came. Its methods are safe for use by several goroutines.
type Sink struct {
	f       *os.File
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once

	mu   sync.Mutex
	tail []byte // at most Capacity bytes
}

// New starts to read f, a pipe open for reading without blocking, and owns it from then on.
func New(f *os.File) *Sink {
	s := &Sink{f: f, stop: make(chan struct{}), stopped: make(chan struct{})}
	go s.run()
	return s
}

// Tail returns a copy of the end of what came.
func (s *Sink) Tail() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.tail...)
}

// Close takes what is in the pipe at that moment, once, and ends the reading. Tail still works.
func (s *Sink) Close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.f.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	})
	<-s.stopped
}

func (s *Sink) run() {
	defer close(s.stopped)
	defer s.f.Close()
	conn, err := s.f.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := s.take(conn, false)
		if errors.Is(err, os.ErrDeadlineExceeded) && s.f.SetReadDeadline(time.Time{}) == nil {
			_ = s.take(conn, true)
		}
		if err != nil {
			return
		}
		select {
		case <-s.stop:
		case <-time.After(pause):
		}
	}
}

// buffers are what pieces are read into. A Sink has one only while there is something to read: most machines are silent.
var buffers = sync.Pool{New: func() any { return new([Capacity]byte) }}

// take takes what is in the pipe, once there is something unless it is to be at once. io.EOF when nobody has the other end open.
func (s *Sink) take(conn syscall.RawConn, atOnce bool) error {
	var err error
	werr := conn.Read(func(fd uintptr) bool {
		buf := buffers.Get().(*[Capacity]byte)
		defer buffers.Put(buf)
		var n int
		for n, err = unix.Read(int(fd), buf[:]); errors.Is(err, unix.EINTR); n, err = unix.Read(int(fd), buf[:]) {
		}
		switch {
		case errors.Is(err, unix.EAGAIN):
			return atOnce
		case err == nil && n == 0:
			err = io.EOF
		case err == nil:
			s.add(buf[:n])
		}
		return true
	})
	return errors.Join(werr, err)
}

func (s *Sink) add(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, p...)
	if over := len(s.tail) - Capacity; over > 0 {
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
}
