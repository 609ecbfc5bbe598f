package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Client runs commands on the other end of a stream. It is safe for concurrent use.
type Client struct{ ssh *ssh.Client }

// NewClient greets a Server on conn and returns when it has answered. It closes conn on an error, and when ctx ends before.
func NewClient(ctx context.Context, conn net.Conn) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	config := &ssh.ClientConfig{
		User:            "root",
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // the stream has one other end: see the package comment
	}
	c, channels, requests, err := ssh.NewClientConn(conn, "host", config)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet the other end: %w", errors.Join(ctx.Err(), err))
	}
	return &Client{ssh: ssh.NewClient(c, channels, requests)}, nil
}

// Close ends the stream; commands that run on it are killed.
func (c *Client) Close() error { return c.ssh.Close() }

// Open opens a stream of its own within this one. The other end serves it as it serves the first.
func (c *Client) Open() (io.ReadWriteCloser, error) {
	ch, requests, err := c.ssh.OpenChannel(streamChannel, nil)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", errors.Join(ErrGone, err))
	}
	go ssh.DiscardRequests(requests)
	return ch, nil
}

// Run runs a command to its end and returns its exit code: 128 plus the number for one that a signal ended. When ctx ends
// the command is killed and the error is ctx's. The error is ErrGone when the stream ended first.
func (c *Client) Run(ctx context.Context, cmd Command) (code int, err error) {
	payload, err := json.Marshal(wireCommand{Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir})
	if err != nil {
		return 0, err
	}
	if len(payload) > maxCommand {
		return 0, fmt.Errorf("the command line has %d bytes, more than %d", len(payload), maxCommand)
	}
	session, err := c.ssh.NewSession()
	if err != nil {
		return 0, fmt.Errorf("run %q: %w", cmd.Args, errors.Join(ErrGone, err))
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { kill(session) })
	defer stop()

	session.Stdin, session.Stdout, session.Stderr = cmd.Stdin, cmd.Stdout, cmd.Stderr
	if t := cmd.Terminal; t != nil {
		if err := session.RequestPty(t.Term, t.Size.Rows, t.Size.Columns, ssh.TerminalModes{}); err != nil {
			return 0, fmt.Errorf("get a terminal: %w", err)
		}
	}
	if err := session.Start(string(payload)); err != nil {
		return 0, fmt.Errorf("run %q: %w", cmd.Args, errors.Join(ctx.Err(), ErrGone, err))
	}
	done := make(chan struct{})
	defer close(done)
	go pass(session, cmd, done)
	return outcome(ctx, session.Wait())
}

// killPatience is how long a killed command may take to say how it ended before its channel is closed, which ends it too.
const killPatience = 10 * time.Second

// kill ends a session whose caller no longer waits.
func kill(session *ssh.Session) {
	_ = session.Signal(ssh.SIGKILL)
	time.AfterFunc(killPatience, func() { _ = session.Close() })
}

// pass hands on signals and changes of the terminal's size until done.
func pass(session *ssh.Session, cmd Command, done <-chan struct{}) {
	var resize <-chan Size
	if cmd.Terminal != nil {
		resize = cmd.Terminal.Resize
	}
	for {
		select {
		case <-done:
			return
		case s := <-cmd.Signals:
			_ = session.Signal(ssh.Signal(s))
		case size := <-resize:
			_ = session.WindowChange(size.Rows, size.Columns)
		}
	}
}

// outcome turns what a session ended with into an exit code.
func outcome(ctx context.Context, err error) (int, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	default:
		return 0, fmt.Errorf("%w: %w", ErrGone, err)
	}
}
