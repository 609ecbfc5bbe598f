// Package pager answers the page faults of one microVM: its memory begins empty, and each page is brought in from the files of the
// build that it starts from when it is first touched.
//
// It is the whole of one small process per machine. The process is started first and listens; Firecracker connects, hands over its
// userfaultfd and where its memory lies, and never says a word again. From then on:
//
//   - a fault is answered with what the page is supposed to hold: zeros, when it was taken away (the balloon) or no file has it,
//     or else the bytes that the Layout names. What is believed to be present already is only ever a reason not to do work ahead,
//     never a reason not to answer;
//   - removals are applied before faults that were read with them;
//   - when there is no fault, the recorded working set of an earlier start is brought in, then, if asked for, all the rest. When all
//     is in, the pager may let go of the memory and leave.
//
// Whatever is wrong with a file (short, unreadable) ends the pager with an error: it never serves bytes that it is not sure of. A
// pager that ends while its machine lives leaves threads of it asleep for ever, so whoever watches the pager's process ends the
// machine with it; the pager itself kills nobody. It keeps nothing that matters and can be killed at any time.
//
// Firecracker is not trusted, as a guest may have taken it over. What it can reach here is the reading of one bounded message, the
// reading of fixed-size messages from the kernel, and arithmetic on addresses, in a process without privilege that can read the
// build's files and write the record. What it floods the pager with costs time of its own machine's share, and constant memory.
//
// There is one goroutine that serves and owns all state, on one descriptor set. Faults that come together are overlapped by telling the
// kernel about all reads before the first is made, which needs no threads.
package pager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// Extent says where a run of guest memory is.
type Extent struct {
	File   int    // the index of the file; -1: it is zero
	Offset int64  // where in the file
	Length uint64 // how many bytes, at least 1
}

// Layout says where each byte of guest memory is. It is flat: there is nothing to look up behind it. It does not change.
type Layout interface {
	// Find returns the extent from offset on. It is asked only for offsets below Size, and must not allocate.
	Find(offset uint64) Extent
	// Size is the size of guest memory in bytes.
	Size() uint64
}

// Socket is a unix socket to listen on.
type Socket struct {
	Path     string   // where to make it, with mode 0600. Nothing may be there.
	UID, GID int      // whom to give it to
	File     *os.File // one that listens already, instead of Path
}

// Identity is whom to become.
type Identity struct{ UID, GID int }

// Peer says who may connect as the machine.
type Peer struct {
	UID int
	PID int // 0: any
}

// Config is what a pager works with. Layout, Listen and Peer must be given.
type Config struct {
	Layout Layout
	Files  []*os.File // what Extent.File counts; regular files that nobody changes. Run leaves them open.

	Listen         Socket
	Peer           Peer
	ConnectTimeout time.Duration // how long Firecracker may take to connect and speak: a minute unless set

	Control *Socket // where to take commands; nil: nowhere. Its UID and root may give them. See Client.

	Prefetch string // a working set to bring in first. It need not exist; one that is damaged is passed over, and Stats say so.
	Record   string // where to write the working set of this start; "": nowhere. The folder must be writable for DropTo.
	MaxPages int    // how much to record, in pages of 4096 bytes: DefaultMaxPages unless set

	Stream bool // bring in everything when there is nothing else to do
	Leave  bool // when everything is in, let go of the memory and end
	Around int  // how many pages of 4096 bytes to bring in with a fault, itself included: DefaultAround unless set; 1: only itself

	DropTo  *Identity    // whom to become before the first byte is read from a socket; nil: stay
	Ready   func() error // called when Firecracker can connect and there is no privilege left
	Metrics func(Stats)  // called once, at the end, with how it ended
}

const (
	// DefaultMaxPages is 512 MiB: what a record takes of memory (512 KiB) is what limits it.
	DefaultMaxPages = 128 << 10
	// DefaultAround is 16 KiB. A fault costs some 10 microseconds by itself, and a page that comes with it two or three: one neighbour that
	// is needed pays for the others in time, but each that is not takes memory from other machines. See BenchmarkPagesPerSecond.
	DefaultAround = 4

	defaultConnectTimeout = time.Minute
	smallPage             = 4096
	hugePage              = 2 << 20
	maxAround             = 64
)

// Run serves one machine until it ends or everything is in, and returns nil then. Any other end is an error:
//   - ErrInvalid: the configuration, or what came over the socket;
//   - ErrCorrupt: a file is shorter than the layout says;
//   - ErrUnavailable: nobody connected in time;
//   - the context's cause, when it ended first.
//
// It is meant to have the process to itself: it sets the garbage collector up for a small heap, gives up privilege and lowers the
// process's limits, all for good.
func Run(ctx context.Context, c Config) (err error) {
	stats := &Stats{}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pager: panic: %v\n%s", p, debug.Stack())
		}
		if stats.End == "" {
			stats.End = fmt.Sprint(err)
		}
		if c.Metrics != nil {
			c.Metrics(*stats)
		}
	}()
	if err := c.check(); err != nil {
		return err
	}
	stayTiny()
	return lifetime(ctx, c, stats)
}

// Environment is what the process of a pager is to be started with. It keeps Go's runtime from a huge page for a heap of some hundred
// KiB, most of which would be memory for nothing, and has to be known before the program's first line runs.
const Environment = "GODEBUG=disablethp=1"

// stayTiny trades processor time for memory: there is next to nothing to collect while serving, and two threads are enough for the
// one goroutine that serves and the one that takes commands.
func stayTiny() {
	runtime.GOMAXPROCS(2)
	runtime.MemProfileRate = 0
	debug.SetGCPercent(20)
	// A huge page for a few bytes would be half of what we may take. Who starts the process does the same, for what is touched before here.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	debug.SetMemoryLimit(32 << 20) // far from what is needed: near it, the collector would take the time from the faults
}

// pager is one that is starting: what was opened while there was privilege.
type pager struct {
	src      *source
	set      *set
	wake     *waker
	listener *listener
	control  *control
}

// lifetime is what a pager does, from the checks to its end.
func lifetime(ctx context.Context, c Config, stats *Stats) (err error) {
	var p pager
	defer p.close()
	if err := p.open(c, stats); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, p.wake.wake)()
	if err := dropPrivilege(c.DropTo, len(c.Files)); err != nil {
		return err
	}
	if err := p.set.canWrite(); err != nil {
		return err
	}
	debug.FreeOSMemory()
	if c.Ready != nil {
		if err := c.Ready(); err != nil {
			return fmt.Errorf("say that the pager is ready: %w", err)
		}
	}
	peer, err := handshake(ctx, p.listener, p.wake, c.Peer, c.Layout.Size(), time.Now().Add(c.ConnectTimeout))
	if err != nil {
		return err
	}
	defer peer.close()
	p.listener.close()
	p.control.start()
	s, err := newServer(c, p.src, p.set, stats, peer)
	if err != nil {
		return err
	}
	defer s.close()
	end, err := s.serve(ctx, p.wake, p.control.requests)
	if err = errors.Join(err, p.set.finish()); err == nil {
		stats.End = end
	}
	return err
}

// open opens everything that is needed later.
func (p *pager) open(c Config, stats *Stats) (err error) {
	if p.src, err = newSource(c.Layout, c.Files); err != nil {
		return err
	}
	if p.set, err = openSet(c, stats); err != nil {
		return err
	}
	if p.wake, err = newWaker(); err != nil {
		return err
	}
	if p.listener, err = listen(c.Listen); err != nil {
		return err
	}
	p.control, err = newControl(c.Control, p.wake)
	return err
}

func (p *pager) close() {
	if p.control != nil {
		p.control.close()
	}
	if p.listener != nil {
		p.listener.close()
	}
	if p.wake != nil {
		p.wake.close()
	}
	if p.set != nil {
		p.set.close()
	}
}

// check refuses what cannot work and fills in what was left out.
func (c *Config) check() error {
	switch {
	case c.Layout == nil || c.Layout.Size() == 0:
		return errs.Field("layout", "there is none, or it is empty", "give the layout of guest memory")
	case c.Layout.Size()%smallPage != 0:
		return errs.Field("layout", fmt.Sprintf("%d bytes are not whole pages", c.Layout.Size()), "give a multiple of 4096")
	case (c.Listen.Path == "") == (c.Listen.File == nil):
		return errs.Field("listen", "needs a path or a file", "give one of the two")
	case c.Control != nil && (c.Control.Path == "") == (c.Control.File == nil):
		return errs.Field("control", "needs a path or a file", "give one of the two")
	case c.Around < 0 || c.Around > maxAround || c.Around&(c.Around-1) != 0:
		return errs.Field("around", fmt.Sprint(c.Around), fmt.Sprintf("give a power of two up to %d", maxAround))
	case c.MaxPages < 0 || c.MaxPages > maxSetPages:
		return errs.Field("max-pages", fmt.Sprint(c.MaxPages), fmt.Sprintf("give at most %d", maxSetPages))
	case c.ConnectTimeout < 0:
		return errs.Field("connect-timeout", c.ConnectTimeout.String(), "give a positive time")
	}
	if c.Around == 0 {
		c.Around = DefaultAround
	}
	if c.MaxPages == 0 {
		c.MaxPages = DefaultMaxPages
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = defaultConnectTimeout
	}
	return nil
}
