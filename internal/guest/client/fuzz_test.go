package client

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// FuzzClean makes any text fit for a terminal.
func FuzzClean(f *testing.F) {
	f.Add("hello")
	f.Add("\x1b[2J\r\n\u202e\xff\ufffd")
	f.Add(strings.Repeat("\x00", 2*maxText))
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(text)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > maxText*len(`\u10ffff`)+1 {
			t.Errorf("%q becomes %q", text, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q keeps %q", text, r)
			}
		}
	})
}

// FuzzResult reads any end of a command.
func FuzzResult(f *testing.F) {
	f.Add(true, int32(0), "exit status 0")
	f.Add(false, int32(-1), "signal: killed (core dumped)")
	f.Add(false, int32(-1), "signal: signal 34")
	f.Fuzz(func(t *testing.T, exited bool, code int32, status string) {
		got, err := result(&processpb.ProcessEvent_EndEvent{Exited: exited, ExitCode: code, Status: status})
		printable(t, err)
		switch {
		case err != nil:
			if got != (Result{}) || !errors.Is(err, errs.ErrUnavailable) {
				t.Errorf("%+v, %v", got, err)
			}
		case got.Signal == 0 && (got.ExitCode < 0 || got.ExitCode > 255), got.Signal != 0 && (got.ExitCode != -1 || got.Signal > lastSignal):
			t.Errorf("%+v", got)
		}
		printable(t, errors.New(got.Status))
	})
}

// FuzzStream has a guest answer with any bytes, from the status line on, and close the connection.
func FuzzStream(f *testing.F) {
	f.Add([]byte(streaming + started(7) + stdout("x") + keptAlive() + exited(3) + over))
	f.Add([]byte(streaming + started(7) + signaled("signal: killed") + over))
	f.Add([]byte(streaming + envelope(2, `{"error":{"code":"not_found","message":"x"}}`)))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\x02\x00\x00\x00\x02\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		g := starting(func(c *call) { _, _ = c.Write(answer) })
		dialed := 0
		c := New(func(ctx context.Context, port int) (net.Conn, error) {
			if dialed++; dialed > 20 {
				t.Errorf("%q makes the host connect for ever", answer)
				return nil, io.EOF
			}
			return g.dial(ctx, port)
		}, token)
		defer c.Close()
		res, err := c.Run(context.Background(), Command{Cmd: "true", Stdout: io.Discard})
		printable(t, err)
		if err == nil && res.Status == "" {
			t.Errorf("%q: a result without words", answer)
		}
	})
}
