package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"

	"github.com/coder/websocket"

	"wrenn.dev/wrenn/client/internal/rest"
)

const (
	// protocol is the subprotocol of a terminal's connection.
	protocol = "wrenn.v1"
	// maxShown bounds one message from a terminal, in bytes.
	maxShown = 4 << 20
	// maxTyped is how much of what is typed is sent at once, in bytes.
	maxTyped = 64 << 10
)

// TerminalOptions say what runs in a terminal.
type TerminalOptions struct {
	// Cmd is a path in the guest, or a name that is looked up in the PATH; empty is a login shell, bash.
	Cmd  string
	Args []string
	Cwd  string       // the folder to start in; empty is the user's home
	User string       // a user of the guest; empty is its default one
	Size TerminalSize // the zero value is 80 by 24, or as it is
	// Keep has the command go on when the connection ends. Otherwise it is killed then, with all that it started.
	Keep bool
	// PID joins a command that has a terminal; 0 starts one. With it only the size may be given.
	PID int
}

// Terminal is a command in a terminal. One goroutine reads and one writes; Resize and Close are for any.
type Terminal struct {
	PID int // in the guest

	ctx    context.Context
	cancel context.CancelFunc
	conn   *websocket.Conn
	rest   []byte // of what was shown, what is to be read yet
	ended  error  // io.EOF once the command has ended
	exit   Exit
}

// OpenTerminal starts a command in a terminal, or joins one, and returns when it runs. The connection ends with ctx.
func (s *Sandbox) OpenTerminal(ctx context.Context, o TerminalOptions) (*Terminal, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	params := rest.OpenTerminalParams{Cmd: given(o.Cmd), Cols: given(int32(o.Size.Cols)), Rows: given(int32(o.Size.Rows)), Cwd: given(o.Cwd),
		User: given(o.User), Keep: given(o.Keep), Pid: given(int64(o.PID))}
	if o.Args != nil {
		params.Args = &o.Args
	}
	req, err := rest.NewOpenTerminalRequest(s.c.rest.Server, s.ID, &params)
	if err != nil {
		return nil, invalid("options", err.Error(), "see TerminalOptions")
	}
	ctx, cancel := context.WithCancel(ctx)
	conn, resp, err := websocket.Dial(ctx, req.URL.String(), &websocket.DialOptions{HTTPClient: s.c.send.http, HTTPHeader: s.c.send.header(), Subprotocols: []string{protocol}})
	if err != nil {
		defer cancel()
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // as far as it came
			return nil, failure(resp, body)
		}
		return nil, broken(ctx, err)
	}
	conn.SetReadLimit(maxShown)
	t := &Terminal{ctx: ctx, cancel: cancel, conn: conn}
	if err := t.begin(); err != nil {
		_ = t.Close() // it did not begin
		return nil, err
	}
	return t, nil
}

// begin reads the first message.
func (t *Terminal) begin() error {
	kind, data, err := t.conn.Read(t.ctx)
	if err != nil {
		return broken(t.ctx, err)
	}
	event, err := toTerminalEvent(kind, data)
	switch {
	case err != nil:
		return err
	case event.Type == rest.TerminalBroken && event.Error != nil:
		return fromRest(*event.Error)
	case event.Type != rest.TerminalStarted:
		return fmt.Errorf("the server sent %.40q out of turn: %w", event.Type, ErrInternal)
	}
	t.PID = int(or(event.Pid, 0))
	return nil
}

func toTerminalEvent(kind websocket.MessageType, data []byte) (rest.TerminalEvent, error) {
	var event rest.TerminalEvent
	if kind != websocket.MessageText {
		return event, fmt.Errorf("the server sent bytes out of turn: %w", ErrInternal)
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return event, fmt.Errorf("the server sent %.200q: %w: %w", data, err, ErrInternal)
	}
	return event, nil
}

// Read reads what the terminal shows. It is io.EOF when the command has ended; Exit then tells how.
func (t *Terminal) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.ended != nil {
			return 0, t.ended
		}
		kind, data, err := t.conn.Read(t.ctx)
		switch {
		case err != nil:
			t.ended = broken(t.ctx, err)
		case kind == websocket.MessageBinary:
			t.rest = data
		default:
			t.end(kind, data)
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

func (t *Terminal) end(kind websocket.MessageType, data []byte) {
	event, err := toTerminalEvent(kind, data)
	switch {
	case err != nil:
		t.ended = err
	case event.Type == rest.TerminalEnded:
		t.exit, t.ended = Exit{int(or(event.ExitCode, 0)), syscall.Signal(or(event.Signal, 0)), or(event.Status, "")}, io.EOF
	case event.Type == rest.TerminalBroken && event.Error != nil:
		t.ended = fromRest(*event.Error)
	default:
		t.ended = fmt.Errorf("the server sent %.40q out of turn: %w", event.Type, ErrInternal)
	}
}

// Exit is how the command ended, once Read has returned io.EOF; before it, and when Read failed, there is an error.
func (t *Terminal) Exit() (Exit, error) {
	switch {
	case errors.Is(t.ended, io.EOF):
		return t.exit, nil
	case t.ended != nil:
		return Exit{}, t.ended
	}
	return Exit{}, fmt.Errorf("the terminal was not read to its end: %w", ErrFailedPrecondition)
}

// Write types.
func (t *Terminal) Write(p []byte) (n int, _ error) {
	for len(p) > 0 {
		piece := p[:min(len(p), maxTyped)]
		if err := t.conn.Write(t.ctx, websocket.MessageBinary, piece); err != nil {
			return n, broken(t.ctx, err)
		}
		n, p = n+len(piece), p[len(piece):]
	}
	return n, nil
}

// Resize changes the terminal's size.
func (t *Terminal) Resize(size TerminalSize) error {
	data, err := json.Marshal(rest.TerminalControl{Type: rest.TerminalResize, Cols: int32(size.Cols), Rows: int32(size.Rows)})
	if err != nil {
		return err
	}
	if err := t.conn.Write(t.ctx, websocket.MessageText, data); err != nil {
		return broken(t.ctx, err)
	}
	return nil
}

// Close ends the connection, and the command with it unless it was kept or joined.
func (t *Terminal) Close() error {
	t.cancel()
	_ = t.conn.CloseNow() // or it is closed
	return nil
}
