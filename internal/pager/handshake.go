package pager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager/uffd"
)

// peer is a machine that has connected.
type peer struct {
	conn    int // Firecracker keeps its end open for as long as it lives, and never uses it again
	mem     uffd.Memory
	regions []Region
}

func (p *peer) close() {
	_ = p.mem.Close()
	_ = unix.Close(p.conn)
}

// tries is how many reads may come without a descriptor. Firecracker's own example handler found that a read sometimes does.
const tries = 5

// handshake waits for the machine and takes its message. Whoever else connects is sent away, and the wait goes on.
func handshake(ctx context.Context, l *listener, w *waker, who Peer, total uint64, deadline time.Time) (*peer, error) {
	for {
		if err := await(ctx, l.fd, w, deadline); err != nil {
			return nil, fmt.Errorf("wait for the machine to connect: %w", err)
		}
		conn, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("accept the machine: %w", err)
		}
		cred, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(cred.Uid) != who.UID || who.PID != 0 && int(cred.Pid) != who.PID {
			_ = unix.Close(conn)
			continue
		}
		p, err := greet(ctx, conn, w, total, deadline)
		if err != nil {
			_ = unix.Close(conn)
			return nil, fmt.Errorf("the machine's message: %w", err)
		}
		return p, nil
	}
}

// await waits until fd can be read from. ErrUnavailable when the deadline passes, the context's cause when it ends.
func await(ctx context.Context, fd int, w *waker, deadline time.Time) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.fd), Events: unix.POLLIN}}
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("nothing came in time: %w", errs.ErrUnavailable)
		}
		if _, err := poll(fds, left); err != nil {
			return err
		}
		if fds[1].Revents != 0 {
			w.drain()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// greet reads the machine's one message: what its memory is, and the descriptor that stands for it.
func greet(ctx context.Context, conn int, w *waker, total uint64, deadline time.Time) (_ *peer, err error) {
	var m message
	defer func() {
		if err != nil {
			m.closeFDs()
		}
	}()
	for !m.complete() {
		if err := await(ctx, conn, w, deadline); err != nil {
			return nil, err
		}
		if err := m.read(conn); err != nil {
			return nil, err
		}
	}
	regions, err := decodeRegions(m.body, total)
	if err != nil {
		return nil, err
	}
	mem, err := uffd.FromFD(m.fds[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.ErrInvalid)
	}
	return &peer{conn, mem, regions}, nil
}

// message is what came of a message so far.
type message struct {
	body  []byte
	fds   []int
	empty int // reads that brought no descriptor
}

// complete says whether there is a descriptor and a whole JSON value. The stream has no other mark for the end of a message.
func (m *message) complete() bool { return len(m.fds) > 0 && json.Valid(m.body) }

// read takes one piece. ErrInvalid when it is more than a message can be.
func (m *message) read(conn int) error {
	piece, control := make([]byte, maxHello+1-len(m.body)), make([]byte, unix.CmsgSpace(8*4))
	n, nc, flags, _, err := unix.Recvmsg(conn, piece, control, unix.MSG_CMSG_CLOEXEC)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	}
	fds, err := rights(control[:nc])
	m.fds = append(m.fds, fds...)
	m.body = append(m.body, piece[:n]...)
	if len(m.fds) == 0 {
		m.empty++
	}
	switch {
	case err != nil:
		return err
	case n == 0:
		return fmt.Errorf("it ends after %d bytes: %w", len(m.body), errs.ErrInvalid)
	case len(m.body) > maxHello:
		return fmt.Errorf("it is longer than %d bytes: %w", maxHello, errs.ErrInvalid)
	case len(m.fds) > 1 || flags&unix.MSG_CTRUNC != 0:
		return fmt.Errorf("it has more than one descriptor: %w", errs.ErrInvalid)
	case m.empty >= tries:
		return fmt.Errorf("it has no descriptor: %w", errs.ErrInvalid)
	}
	return nil
}

func (m *message) closeFDs() {
	for _, fd := range m.fds {
		_ = unix.Close(fd)
	}
}

// rights returns the descriptors of a control message, also when it fails: they are open from the moment it was received.
func rights(control []byte) (fds []int, err error) {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.ErrInvalid)
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, fmt.Errorf("%w: %w", err, errs.ErrInvalid)
		}
		fds = append(fds, some...)
	}
	return fds, nil
}
