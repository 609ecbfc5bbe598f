package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const (
	// maxOutput is how much of each output of a command an answer has, in bytes.
	maxOutput = 1 << 20
	// maxInput is how much input a request may give a command, in bytes.
	maxInput = 1 << 20
)

// toText says bytes in JSON without losing any.
func toText(b []byte) rest.Text {
	if utf8.Valid(b) {
		return rest.Text{Encoding: rest.EncodingUTF8, Data: string(b)}
	}
	return rest.Text{Encoding: rest.EncodingBase64, Data: base64.StdEncoding.EncodeToString(b)}
}

// fromText is the bytes that toText said.
func fromText(field string, t rest.Text) ([]byte, error) {
	b := []byte(t.Data)
	if t.Encoding == rest.EncodingBase64 {
		var err error
		if b, err = base64.StdEncoding.DecodeString(t.Data); err != nil {
			return nil, errs.Field(field+".data", "it is not base64", "give base64, or the encoding utf-8")
		}
	}
	if len(b) > maxInput {
		return nil, errs.Field(field+".data", fmt.Sprintf("it has %d bytes", len(b)), fmt.Sprintf("give at most %d", maxInput))
	}
	return b, nil
}

// command is what the agent is asked to run, and its input, nil for none.
func command(id string, c *rest.Command) (*pb.ExecRequest, io.Reader, error) {
	req := &pb.ExecRequest{Id: id, Cmd: c.Cmd, Args: or(c.Args, nil), Env: or(c.Env, nil), Cwd: or(c.Cwd, ""), User: or(c.User, ""),
		TimeoutMilliseconds: uint32(or(c.TimeoutMs, 0))}
	if req.Stdin = or(c.MoreStdin, false); req.Stdin && c.Stdin != nil {
		return nil, nil, errs.Field("more_stdin", "stdin is given as well", "give all input through …/processes/{pid}/stdin, or all of it here")
	}
	if c.Stdin == nil {
		return req, nil, nil
	}
	in, err := fromText("stdin", *c.Stdin)
	return req, bytes.NewReader(in), err
}

// head keeps the beginning of what is written to it.
type head struct {
	bytes.Buffer
	cut bool
}

// Write implements io.Writer. It takes everything: the command is not to fail for what is not kept.
func (h *head) Write(p []byte) (int, error) {
	room := maxOutput - h.Len()
	if len(p) > room {
		h.cut = true
	}
	h.Buffer.Write(p[:min(len(p), room)])
	return len(p), nil
}

// ExecCommand implements rest.StrictServerInterface.
func (s *server) ExecCommand(ctx context.Context, r rest.ExecCommandRequestObject) (rest.ExecCommandResponseObject, error) {
	req, in, err := command(r.ID, r.Body)
	if err != nil {
		return nil, err
	}
	if req.Stdin {
		return nil, errs.Field("more_stdin", "who waits for the end of a command does not learn its pid", "use …/exec/stream")
	}
	ctx, cancel := context.WithTimeout(ctx, control.OpTime) // with an idempotency key, no caller's leaving ends it
	defer cancel()
	var out, stderr head
	began := time.Now()
	end, err := s.Control.Exec(ctx, team(ctx), req, client.Streams{Stdin: in, Stdout: &out, Stderr: &stderr})
	if err != nil {
		return nil, err
	}
	return rest.ExecCommand200JSONResponse{ExitCode: int32(end.ExitCode), Signal: given(int32(end.Signal)), Status: end.Status,
		Stdout: toText(out.Bytes()), StdoutTruncated: out.cut, Stderr: toText(stderr.Bytes()), StderrTruncated: stderr.cut,
		TookMs: time.Since(began).Milliseconds()}, nil
}

// StreamCommand implements rest.StrictServerInterface.
func (s *server) StreamCommand(ctx context.Context, r rest.StreamCommandRequestObject) (rest.StreamCommandResponseObject, error) {
	req, in, err := command(r.ID, r.Body)
	if err != nil {
		return nil, err
	}
	return stream{ctx, func(out client.Streams) (client.Result, error) {
		out.Stdin = in
		return s.Control.Exec(ctx, team(ctx), req, out)
	}}, nil
}

// stream is a command whose output is the answer. It begins when there is something to answer: what fails before is an error like any other.
type stream struct {
	ctx context.Context
	run func(client.Streams) (client.Result, error)
}

// VisitStreamCommandResponse implements rest.StreamCommandResponseObject.
func (s stream) VisitStreamCommandResponse(w http.ResponseWriter) error {
	if headOnly(s.ctx, w, "application/x-ndjson") {
		return nil
	}
	l := &lines{w: w}
	end, err := s.run(client.Streams{Stdout: l.output(rest.Stdout), Stderr: l.output(rest.Stderr),
		Started: func(pid uint32) { _ = l.send(rest.CommandEvent{Type: rest.Started, Pid: given(int64(pid))}) }}) // the next one fails, too
	if err != nil {
		if !l.begun {
			return err
		}
		_, e := toError(requestID(s.ctx), fromGuest(err))
		return l.send(rest.CommandEvent{Type: rest.Broken, Error: &e})
	}
	code := int32(end.ExitCode)
	return l.send(rest.CommandEvent{Type: rest.Ended, ExitCode: &code, Signal: given(int32(end.Signal)), Status: &end.Status})
}

// VisitFollowProcessResponse implements rest.FollowProcessResponseObject.
func (s stream) VisitFollowProcessResponse(w http.ResponseWriter) error {
	return s.VisitStreamCommandResponse(w)
}

// lines are an answer of one JSON object a line.
type lines struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
}

func (l *lines) send(e rest.CommandEvent) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
	if _, err := l.w.Write(append(line, '\n')); err != nil {
		return err
	}
	return http.NewResponseController(l.w).Flush()
}

// output is one of the command's outputs.
func (l *lines) output(kind rest.CommandEventType) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		t := toText(p)
		return len(p), l.send(rest.CommandEvent{Type: kind, Encoding: &t.Encoding, Data: &t.Data})
	})
}

type writerFunc func(p []byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
