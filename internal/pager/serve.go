package pager

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager/uffd"
)

const (
	// batchBytes is the most that is brought in by one call, and with it how long a fault may have to wait for work done ahead.
	batchBytes = 256 << 10
	// maxReads bounds how many messages are read before faults are answered: a flood of removals must not keep them waiting. A
	// fault that is answered while a removal is unread is refused by the kernel, so nothing is lost by it.
	maxReads = 16
	// maxPending bounds the faults that wait. Each is a thread that sleeps, and a machine has some dozens of them.
	maxPending = 16 << 10
	// heldTries is how often a call that a removal holds up is made again at once. A machine that takes away piece after piece leaves
	// but a microsecond or two between two of them, in which the kernel lets memory be made. More tries were tried, and keep the
	// thread that takes away from running.
	heldTries = 8
	// heldPause is how long to wait for a removal to have happened after its message was read, which the kernel tells nobody.
	heldPause = 50 * time.Microsecond
	// restAfter is how long no fault must have come for memory to be given back that is not needed at rest: the buffer but for
	// keepBytes, and the heap's garbage when there may be some of maxLitter commands.
	restAfter = 10 * time.Millisecond
	keepBytes = 64 << 10
	maxLitter = 32
	// quiet is how long no fault must have come for the rest to be streamed in.
	quiet = 2 * time.Millisecond
)

var (
	// errHeld: memory is being taken away; read the messages and try again.
	errHeld = errors.New("held up by a removal")
	// errGone: the machine's process is gone.
	errGone = errors.New("the machine is gone")
)

// pending is a fault that was not answered yet.
type pending struct {
	addr uint64
	read time.Time
}

// server answers the faults of one machine. It belongs to one goroutine.
type server struct {
	mem     uffd.Memory
	src     *source
	regions []*region
	set     *set
	stats   *Stats
	around  uint64 // bytes
	leave   bool

	fds     [3]unix.PollFd
	msgs    [64]uffd.Msg
	pending []pending
	last    time.Time // when a fault was answered last
	held    bool      // the last thing tried was held up by a removal
	buf     []byte    // what was read from the files, on its way
	large   bool      // more than keepBytes of buf were used
	litter  int       // commands carried out, or what costs as much memory, since garbage was collected
	zeros   []byte    // a page of zeros where the kernel does not make one itself; never written to, so never there

	runs      []run // of the prefetch, ready to be made
	streaming bool
	cursor    cursor
	leaving   bool
}

// The places in fds.
const (
	fdMemory = iota
	fdConn
	fdWake
)

func newServer(c Config, src *source, set *set, stats *Stats, p *peer) (_ *server, err error) {
	s := &server{
		mem: p.mem, src: src, set: set, stats: stats, around: uint64(c.Around) * smallPage, leave: c.Leave, streaming: c.Stream,
		runs: make([]run, 0, prefetchBatch),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	size := batchBytes
	for _, r := range p.regions {
		s.regions = append(s.regions, newRegion(r, len(set.ahead) > 0))
		if r.PageSize == hugePage && s.zeros == nil {
			size = hugePage
			if s.zeros, err = newBuffer(hugePage); err != nil {
				return nil, err
			}
		}
	}
	if s.buf, err = newBuffer(size); err != nil {
		return nil, err
	}
	s.fds[fdMemory] = unix.PollFd{Fd: int32(p.mem.FD()), Events: unix.POLLIN}
	s.fds[fdConn] = unix.PollFd{Fd: int32(p.conn)} // its end only: what a machine might say there is of no interest
	return s, nil
}

// present counts the pages that are there.
func (s *server) present() (n uint64) {
	for _, r := range s.regions {
		n += r.present.count()
	}
	return n
}

func (s *server) close() {
	s.stats.Present = s.present()
	freeBuffer(s.buf)
	freeBuffer(s.zeros)
}

// serve works until there is nothing to do any more, and says why that is.
func (s *server) serve(ctx context.Context, w *waker, requests <-chan request) (end string, err error) {
	s.fds[fdWake] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN}
	for {
		if _, err := poll(s.fds[:], s.patience()); err != nil {
			return "", fmt.Errorf("wait for faults: %w", err)
		}
		if s.fds[fdWake].Revents != 0 {
			w.drain()
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			s.obey(requests)
		}
		if s.fds[fdConn].Revents != 0 {
			return EndMachine, nil
		}
		done, err := s.turn()
		switch {
		case errors.Is(err, errGone):
			return EndMachine, nil
		case errors.Is(err, errHeld):
			s.held = true
			s.stats.Again++
		case err != nil:
			return "", err
		case done:
			return EndAllIn, nil
		default:
			s.held = false
		}
	}
}

// turn does one piece of work: the faults that there are, or else some of what is not needed yet.
func (s *server) turn() (done bool, err error) {
	switch events := s.fds[fdMemory].Revents; {
	case events&unix.POLLIN != 0:
		if err := s.read(); err != nil {
			return false, err
		}
		fallthrough
	case len(s.pending) > 0 && !s.leaving:
		return false, s.answer()
	case events != 0: // a userfaultfd says so only when it is not one that can be served
		return false, fmt.Errorf("the userfaultfd has events %#x: %w", events, errs.ErrInvalid)
	case s.leaving:
		return s.settled()
	case !s.stats.PrefetchDone:
		return false, s.prefetch()
	case s.streaming && time.Since(s.last) >= quiet:
		return false, s.stream()
	case s.untidy() && time.Since(s.last) >= restAfter:
		s.tidy()
	}
	return false, nil
}

func (s *server) untidy() bool { return s.large || s.litter >= maxLitter }

// tidy gives back memory that is not needed at rest.
func (s *server) tidy() {
	if s.large {
		emptyBuffer(s.buf[keepBytes:])
	}
	if s.litter >= maxLitter {
		go debug.FreeOSMemory() // it takes some milliseconds, which a fault must not wait
	}
	s.large, s.litter = false, 0
}

// patience is how long there is nothing to do.
func (s *server) patience() time.Duration {
	switch {
	case s.held || s.leaving:
		return heldPause
	case len(s.pending) > 0 || !s.stats.PrefetchDone:
		return 0
	case s.streaming:
		return max(0, quiet-time.Since(s.last))
	case s.untidy():
		return max(0, restAfter-time.Since(s.last))
	}
	return forever
}

// read takes the messages that there are. Removals are applied at once, faults are put with those that wait: a fault that comes out
// first may still be the younger one.
func (s *server) read() error {
	now := time.Now()
	for range maxReads {
		n, err := s.mem.Read(s.msgs[:])
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the machine's faults: %w", err)
		}
		for _, m := range s.msgs[:n] {
			switch m.Kind {
			case uffd.Fault:
				if len(s.pending) >= maxPending {
					return fmt.Errorf("%d faults wait: %w", len(s.pending), errs.ErrResourceExhausted)
				}
				s.stats.Faults++
				s.pending = append(s.pending, pending{m.Start, now})
			case uffd.Remove:
				for _, r := range s.regions {
					s.stats.Removed += r.take(m.Start, m.End)
				}
			default:
				if m.Kind == uffd.Fork {
					_ = unix.Close(m.FD) // reading the message has opened it
				}
				return fmt.Errorf("message of kind %#x, which the machine should not have asked for: %w", m.Kind, errs.ErrInvalid)
			}
		}
		if n < len(s.msgs) {
			return nil
		}
	}
	return nil
}

// answer serves the faults that wait, up to the first that a removal holds up: it would hold up the others, too.
func (s *server) answer() error {
	if s.leaving { // whoever waited was woken when the memory was let go of
		s.pending = s.pending[:0]
		return nil
	}
	if len(s.pending) > 1 {
		for _, p := range s.pending[:min(len(s.pending), len(s.msgs))] {
			if r := s.region(p.addr); r != nil {
				s.src.announce(r.offset((p.addr-r.Base)>>r.shift), r.PageSize)
			}
		}
	}
	for i, p := range s.pending {
		if err := s.fault(p.addr); err != nil {
			s.pending = append(s.pending[:0], s.pending[i:]...)
			return err
		}
		s.last = time.Now()
		s.stats.took(s.last.Sub(p.read))
	}
	s.pending = s.pending[:0]
	return nil
}

func (s *server) region(addr uint64) *region {
	for _, r := range s.regions {
		if r.has(addr) {
			return r
		}
	}
	return nil
}

// obey carries out the commands that have come.
func (s *server) obey(requests <-chan request) {
	for {
		select {
		case r := <-requests:
			r.reply <- s.command(r.op)
			s.litter++
		default:
			return
		}
	}
}

func (s *server) command(op string) Reply {
	switch op {
	case opStats:
		stats := *s.stats
		stats.Present = s.present()
		return Reply{Stats: &stats}
	case opRecordStop:
		if !s.set.on {
			return fail(fmt.Errorf("nothing is being recorded: %w", errs.ErrFailedPrecondition))
		}
		pages := len(s.set.recorded)
		s.litter += maxLitter
		if err := s.set.finish(); err != nil {
			return fail(err)
		}
		return Reply{Pages: &pages}
	case opStream:
		s.streaming = true
		return Reply{}
	}
	return fail(errs.Field("op", fmt.Sprintf("%q", op), "give stats, record-stop or stream"))
}
