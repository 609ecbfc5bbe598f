package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const (
	// terminalProtocol is the subprotocol of a terminal's messages.
	terminalProtocol = "wrenn.v1"
	// maxMessage bounds a message from the caller, in bytes.
	maxMessage = 64 << 10
	// pongTime is how long the peer may take to answer a ping, and with it to take what is shown.
	pongTime = time.Minute
	// typedTime is how long a command may leave untaken what is typed.
	typedTime = 5 * time.Minute
)

// The shell, and the size of its terminal, that who asks for nothing else gets.
const (
	shell       = "bash"
	defaultCols = 80
	defaultRows = 24
)

// OpenTerminal implements rest.StrictServerInterface. What is wrong with the request, or with the sandbox, is an error before there is a
// WebSocket.
func (s *server) OpenTerminal(ctx context.Context, r rest.OpenTerminalRequestObject) (rest.OpenTerminalResponseObject, error) {
	if err := sameOrigin(requestOf(ctx)); err != nil {
		return nil, err
	}
	p := r.Params
	if p.Pid != nil && (p.Cmd != nil || p.Args != nil || p.Cwd != nil || p.User != nil || p.Keep != nil) {
		return nil, errs.Field("pid", "it is given with what is for a command that is started", "give nothing beside it but cols and rows")
	}
	if p.Args != nil && p.Cmd == nil {
		return nil, errs.Field("args", "there is no command", "give cmd")
	}
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return &terminal{ctx: ctx, sb: sb, doc: s.doc, params: p, started: make(chan struct{})}, nil
}

// sameOrigin refuses a page of another site: a browser would open a WebSocket for it.
func sameOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err == nil && strings.EqualFold(u.Host, r.Host) {
		return nil
	}
	return fmt.Errorf("a page of %.200q may not open a WebSocket here: %w", origin, errs.ErrPermissionDenied)
}

// terminal is an answer that becomes a WebSocket.
type terminal struct {
	ctx    context.Context
	sb     *control.Running
	doc    *contract.Document
	params rest.OpenTerminalParams
	conn   *websocket.Conn

	pid     uint32
	started chan struct{} // closed when pid is known
	typing  atomic.Bool   // a message from the caller is on its way to the command
}

// VisitOpenTerminalResponse implements rest.OpenTerminalResponseObject. It returns when the session is over.
func (t *terminal) VisitOpenTerminalResponse(w http.ResponseWriter) (err error) {
	hand := &handshake{ResponseWriter: w}
	t.conn, err = websocket.Accept(hand, requestOf(t.ctx), &websocket.AcceptOptions{Subprotocols: []string{terminalProtocol},
		InsecureSkipVerify: true}) // the origin is checked
	if err != nil {
		return errs.Field("Upgrade", err.Error(), "open it as a WebSocket, version 13")
	}
	defer func() { _ = t.conn.CloseNow() }()
	t.conn.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	// The reader goes on until the connection is closed: it is who hears of the other side's.
	reading, stop := context.WithCancel(t.ctx)
	var both sync.WaitGroup
	both.Go(func() { cancel(t.read(reading, ctx)) })
	both.Go(func() { t.ping(ctx, cancel) })
	end, err := t.run(ctx)
	if why := context.Cause(ctx); err != nil && why != nil {
		err = why
	}
	cancel(nil)
	if !errors.Is(err, errLeft) {
		t.end(end, err)
	}
	stop()
	both.Wait()
	return nil // what went wrong was told
}

// handshake lets pass what makes a WebSocket. A refusal is told in the API's own way.
type handshake struct {
	http.ResponseWriter
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (h *handshake) WriteHeader(status int) {
	if h.refused = status != http.StatusSwitchingProtocols; !h.refused {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write implements io.Writer.
func (h *handshake) Write(p []byte) (int, error) {
	if h.refused {
		return len(p), nil
	}
	return h.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (h *handshake) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// run starts the command, or joins it, and returns when it has ended.
func (t *terminal) run(ctx context.Context) (client.Result, error) {
	p := t.params
	out := client.Streams{Stdout: t.shown(), Stderr: t.shown(), Started: func(pid uint32) {
		t.pid = pid
		close(t.started)
		_ = t.send(rest.TerminalEvent{Type: rest.TerminalStarted, Pid: given(int64(pid))}) // the next one fails, too
	}}
	if p.Pid == nil {
		size := &pb.TerminalSize{Cols: uint32(or(p.Cols, defaultCols)), Rows: uint32(or(p.Rows, defaultRows))}
		req := &pb.ExecRequest{Cmd: or(p.Cmd, shell), Args: or(p.Args, nil), Cwd: or(p.Cwd, ""), User: or(p.User, ""),
			Terminal: size, KillOnHangup: !or(p.Keep, false)}
		if p.Cmd == nil {
			req.Args = []string{"-l"}
		}
		return t.sb.Exec(ctx, req, out)
	}
	pid := uint32(*p.Pid)
	if size := (&pb.TerminalSize{Cols: uint32(or(p.Cols, 0)), Rows: uint32(or(p.Rows, 0))}); size.Cols > 0 && size.Rows > 0 {
		if err := t.sb.Resize(ctx, pid, size); err != nil {
			return client.Result{}, err
		}
	}
	return t.sb.Attach(ctx, pid, out)
}

// shown sends what the terminal shows.
func (t *terminal) shown() io.Writer {
	return writerFunc(func(p []byte) (int, error) { return len(p), t.write(websocket.MessageBinary, p) })
}

func (t *terminal) send(e rest.TerminalEvent) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return t.write(websocket.MessageText, text)
}

// write sends a message. A peer that takes nothing is gone. Its time is not the session's, at whose end there is something to tell: the library closes
// a connection whose write is given up.
func (t *terminal) write(kind websocket.MessageType, p []byte) error {
	ctx, cancel := context.WithTimeout(t.ctx, pongTime)
	defer cancel()
	if err := t.conn.Write(ctx, kind, p); err != nil {
		return fmt.Errorf("%w: %w", errLeft, err)
	}
	return nil
}

// end tells how it ended and closes the connection.
func (t *terminal) end(end client.Result, err error) {
	code, e := int32(end.ExitCode), rest.TerminalEvent{Type: rest.TerminalEnded, Signal: given(int32(end.Signal)), Status: &end.Status}
	e.ExitCode = &code
	status := websocket.StatusNormalClosure
	if err != nil {
		_, told := toError(requestID(t.ctx), fromGuest(err))
		e = rest.TerminalEvent{Type: rest.TerminalBroken, Error: &told}
		if status = websocket.StatusInternalError; told.Code == rest.InvalidArgument {
			status = websocket.StatusPolicyViolation
		}
	}
	if t.send(e) == nil {
		_ = t.conn.Close(status, "") // if it fails, nobody is there
	}
}

// errLeft is the end of a session whose caller is gone.
var errLeft = errors.New("the caller has left")

// read passes on what the caller sends until the connection ends, which is errLeft, or something is wrong.
func (t *terminal) read(ctx, session context.Context) error {
	for {
		kind, data, err := t.conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", errLeft, err)
		}
		select {
		case <-t.started:
		case <-session.Done():
			continue // nobody is there to take it; the connection's end comes next
		}
		t.typing.Store(true)
		if kind == websocket.MessageBinary {
			err = t.typed(session, data)
		} else {
			err = t.told(session, data)
		}
		t.typing.Store(false)
		if err != nil {
			return err
		}
	}
}

// typed gives the command input. One that has just ended, or has closed its terminal, misses nothing.
func (t *terminal) typed(ctx context.Context, data []byte) error {
	err := t.sb.Input(ctx, control.Input{PID: t.pid, Data: data, Time: typedTime})
	if errors.Is(err, errs.ErrNotFound) || errors.Is(err, errs.ErrFailedPrecondition) {
		return nil
	}
	return err
}

// told does what a text message says.
func (t *terminal) told(ctx context.Context, text []byte) error {
	size, err := resizing(t.doc, text)
	if err != nil {
		return err
	}
	err = t.sb.Resize(ctx, t.pid, size)
	if errors.Is(err, errs.ErrNotFound) {
		return nil // it has just ended
	}
	return err
}

// resizing reads a text message from the caller, which the document calls TerminalControl. There is one kind.
func resizing(doc *contract.Document, text []byte) (*pb.TerminalSize, error) {
	if err := doc.Check("TerminalControl", text); err != nil {
		return nil, err
	}
	var c rest.TerminalControl
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, errs.Field("TerminalControl", err.Error(), "send one JSON object")
	}
	return toTerminalSize(rest.TerminalSize{Cols: c.Cols, Rows: c.Rows}), nil
}

// ping ends a session whose caller answers none.
func (t *terminal) ping(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t.typing.Load() {
			continue // the answer would wait behind what is typed
		}
		pong, stop := context.WithTimeout(t.ctx, pongTime) // the session's end is told over the connection, which is not to break
		err := t.conn.Ping(pong)
		stop()
		if err != nil && !t.typing.Load() {
			cancel(fmt.Errorf("%w: %w", errLeft, err))
			return
		}
	}
}
