package pager

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// The protocol of the control socket: one connection a command, one line of JSON each way, answered by the goroutine that serves
// between two pieces of its work. It is answered from when the machine has connected; before, a command waits.
const (
	opStats      = "stats"
	opRecordStop = "record-stop"
	opStream     = "stream"

	maxCommand     = 1 << 10
	maxReply       = 16 << 10
	commandTimeout = 10 * time.Second
	// lastWords is how long the end of a pager waits for an answer that is on its way.
	lastWords = 200 * time.Millisecond
)

// Command is what a client sends.
type Command struct {
	Op string `json:"op"` // "stats", "record-stop" or "stream"
}

// Reply is what it gets.
type Reply struct {
	Error string `json:"error,omitempty"`
	Kind  string `json:"kind,omitempty"`  // which of the kinds in package errs the error is
	Pages *int   `json:"pages,omitempty"` // record-stop: how many pages are in the record
	Stats *Stats `json:"stats,omitempty"`
}

// kinds are the kinds of error that cross the socket.
var kinds = map[string]error{
	"invalid": errs.ErrInvalid, "failed-precondition": errs.ErrFailedPrecondition, "unauthenticated": errs.ErrUnauthenticated,
	"unavailable": errs.ErrUnavailable,
}

func fail(err error) Reply {
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			return Reply{Error: err.Error(), Kind: name}
		}
	}
	return Reply{Error: err.Error()}
}

// err is the error that a reply carries, of the same kind.
func (r Reply) err() error {
	switch kind, known := kinds[r.Kind]; {
	case r.Error == "":
		return nil
	case known:
		return fmt.Errorf("pager: %q: %w", r.Error, kind)
	}
	return fmt.Errorf("pager: %q", r.Error)
}

// request is a command on its way to the goroutine that serves.
type request struct {
	op    string
	reply chan Reply // with room for one: an answer that nobody waits for any more holds nobody up
}

// control takes commands. A nil socket takes none.
type control struct {
	raw      *listener
	ln       net.Listener
	uid      int
	waker    *waker
	requests chan request
	done     chan struct{} // closed when the pager ends
	stopped  chan struct{} // closed when no command is being handled any more; nil before start
}

func newControl(sock *Socket, w *waker) (*control, error) {
	c := &control{waker: w, requests: make(chan request, 1), done: make(chan struct{})}
	if sock == nil {
		return c, nil
	}
	raw, err := listen(*sock)
	if err != nil {
		return nil, err
	}
	c.raw, c.uid = raw, sock.UID
	f := os.NewFile(uintptr(raw.fd), "control") // and with it the descriptor
	raw.fd = -1
	c.ln, err = net.FileListener(f)
	if err = errors.Join(err, f.Close()); err != nil {
		c.close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return c, nil
}

// start begins to take commands.
func (c *control) start() {
	if c.ln == nil {
		return
	}
	c.stopped = make(chan struct{})
	go func() {
		defer close(c.stopped)
		for {
			conn, err := c.ln.Accept()
			if err != nil {
				return
			}
			c.handle(conn)
		}
	}()
}

// close ends the taking of commands and removes the socket. What was carried out is answered: a command may well be why the pager
// ends.
func (c *control) close() {
	close(c.done)
	if c.ln != nil {
		_ = c.ln.Close()
	}
	if c.stopped != nil {
		select {
		case <-c.stopped:
		case <-time.After(lastWords):
		}
	}
	if c.raw != nil {
		c.raw.close()
	}
}

// handle serves one connection: one command. One after the other, each for a bounded time.
func (c *control) handle(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(commandTimeout))
	reply := c.answer(conn)
	data, err := json.Marshal(reply)
	if err == nil {
		_, _ = conn.Write(append(data, '\n'))
	}
}

func (c *control) answer(conn net.Conn) Reply {
	if err := c.allowed(conn); err != nil {
		return fail(err)
	}
	cmd, err := readCommand(conn)
	if err != nil {
		return fail(err)
	}
	r := request{cmd.Op, make(chan Reply, 1)}
	select {
	case c.requests <- r:
	case <-c.done:
		return fail(fmt.Errorf("the pager is ending: %w", errs.ErrUnavailable))
	}
	c.waker.wake()
	select {
	case reply := <-r.reply:
		return reply
	case <-c.done:
	}
	select { // both may have come
	case reply := <-r.reply:
		return reply
	default:
		return fail(fmt.Errorf("the pager is ending: %w", errs.ErrUnavailable))
	}
}

// allowed lets root and the socket's owner in.
func (c *control) allowed(conn net.Conn) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	return c.permits(cred.Uid)
}

func (c *control) permits(uid uint32) error {
	if uid != 0 && int(uid) != c.uid {
		return fmt.Errorf("uid %d may not command this pager: %w", uid, errs.ErrUnauthenticated)
	}
	return nil
}

// readCommand reads one line. ErrInvalid for one that is too long or not a command.
func readCommand(r io.Reader) (Command, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(r, maxCommand), maxCommand).ReadSlice('\n')
	if err != nil {
		return Command{}, fmt.Errorf("command of at most %d bytes: %w: %w", maxCommand, err, errs.ErrInvalid)
	}
	var cmd Command
	if err := json.Unmarshal(line, &cmd); err != nil {
		return Command{}, fmt.Errorf("command: %w: %w", err, errs.ErrInvalid)
	}
	return cmd, nil
}

// Client commands a pager through its control socket.
type Client struct{ Path string }

// Stats returns what the pager did so far.
func (c Client) Stats(ctx context.Context) (Stats, error) {
	r, err := c.do(ctx, opStats)
	if err == nil && r.Stats == nil {
		err = fmt.Errorf("pager: an answer without stats: %w", errs.ErrUnavailable)
	}
	if err != nil {
		return Stats{}, err
	}
	return *r.Stats, nil
}

// StopRecording has the working set written and returns how many pages it has. ErrFailedPrecondition when none is being recorded.
func (c Client) StopRecording(ctx context.Context) (pages int, err error) {
	r, err := c.do(ctx, opRecordStop)
	if err == nil && r.Pages == nil {
		err = fmt.Errorf("pager: an answer without a number of pages: %w", errs.ErrUnavailable)
	}
	if err != nil {
		return 0, err
	}
	return *r.Pages, nil
}

// Stream has everything brought in when there is nothing else to do.
func (c Client) Stream(ctx context.Context) error {
	_, err := c.do(ctx, opStream)
	return err
}

// do sends one command. ErrUnavailable when the pager does not answer.
func (c Client) do(ctx context.Context, op string) (Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Path)
	if err != nil {
		return Reply{}, fmt.Errorf("pager: %w: %w", err, errs.ErrUnavailable)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	data, err := json.Marshal(Command{op})
	if err == nil {
		_, err = conn.Write(append(data, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = bufio.NewReaderSize(io.LimitReader(conn, maxReply), maxReply).ReadSlice('\n')
	}
	if err != nil {
		return Reply{}, fmt.Errorf("pager: %s: %w: %w", op, err, errs.ErrUnavailable)
	}
	var r Reply
	if err := json.Unmarshal(line, &r); err != nil {
		return Reply{}, fmt.Errorf("pager: %s: %w: %w", op, err, errs.ErrUnavailable)
	}
	return r, r.err()
}
