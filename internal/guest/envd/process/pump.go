package process

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stream says what the i-th reader reads.
func (p *Process) stream(i int) Stream {
	switch {
	case p.tty != nil:
		return Terminal
	case i == 0:
		return Stdout
	}
	return Stderr
}

// pump passes on what a process writes until it is closed or given up. A terminal whose last user is gone fails with EIO, which
// is its way to say so.
func (p *Process) pump(r *os.File, stream Stream) {
	buf := make([]byte, chunkBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			p.hub.publish(p.output, stream, buf[:n])
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && p.ending.Load() {
			p.drain(r, stream, buf)
		}
		return
	}
}

// drain passes on what can be read without waiting: what the command wrote before its end is all there.
func (p *Process) drain(r *os.File, stream Stream, buf []byte) {
	conn, err := r.SyscallConn()
	if err != nil {
		return
	}
	for p.output.Err() == nil {
		n := 0
		err := conn.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) })
		if err != nil || n <= 0 {
			return
		}
		p.hub.publish(p.output, stream, buf[:n])
	}
}

// lastLook makes pump drain the terminal. Who still writes to it has until giveUp.
func (p *Process) lastLook() {
	p.ending.Store(true)
	p.interrupt()
	p.giveUpLater()
}

// giveUpLater bounds the wait for output by the grace.
func (p *Process) giveUpLater() {
	end := time.AfterFunc(p.grace, p.giveUp)
	context.AfterFunc(p.output, func() { end.Stop() })
}

// giveUp stops reading the process's output.
func (p *Process) giveUp() {
	p.give()
	p.interrupt()
}

// interrupt ends reads that are under way.
func (p *Process) interrupt() {
	for _, r := range p.readers {
		_ = r.SetReadDeadline(time.Unix(1, 0)) // fails when it is closed already
	}
}
