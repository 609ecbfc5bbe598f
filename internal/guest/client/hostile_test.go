package client

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

func unpacksTo(n int64) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.CopyN(w, zeros{}, n); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

const megabyte = 1 << 20

// TestWhatEnvdWouldNeverSend has a guest answer the start of a command with everything but what it should, and then close the
// connection. The run ends with an ErrUnavailable that is safe to print.
func TestWhatEnvdWouldNeverSend(t *testing.T) {
	plain := "HTTP/1.1 200 OK\r\nContent-Type: "
	for name, answer := range map[string][]string{
		"nothing":                    {},
		"half a head":                {"HTTP/1.1 200 OK\r\nContent-"},
		"another protocol":           {"SSH-2.0-OpenSSH_9.2\r\n\x1b[2J"},
		"a long header":              {"HTTP/1.1 200 OK\r\nX: ", strings.Repeat("a", megabyte), "\r\n\r\n"},
		"many headers":               {"HTTP/1.1 200 OK\r\n", strings.Repeat("A: b\r\n", megabyte), "\r\n"},
		"a head before the head":     {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", megabyte/10), streaming, started(7), exited(0), over},
		"a redirect":                 {"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"},
		"a redirect with the body":   {"HTTP/1.1 307 Go\r\nLocation: http://envd/process.Process/Start\r\nContent-Length: 0\r\n\r\n"},
		"another protocol offered":   {"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"},
		"a page":                     {plain, "text/html\r\n\r\n<html>"},
		"no content type":            {"HTTP/1.1 200 OK\r\n\r\n"},
		"a unary answer":             {plain, "application/proto\r\n\r\n"},
		"a stream of JSON":           {plain, "application/connect+json\r\n\r\n", envelope(0, "{}")},
		"packed as a whole":          {plain, "application/connect+proto\r\nContent-Encoding: gzip\r\n\r\n", unpacksTo(megabyte)},
		"packed messages":            {plain, "application/connect+proto\r\nConnect-Content-Encoding: gzip\r\n\r\n", envelope(1, unpacksTo(megabyte))},
		"packed unannounced":         {streaming, envelope(1, unpacksTo(megabyte))},
		"unknown flags":              {streaming, envelope(0xfc, "")},
		"a broken chunk":             {plain, "application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"},
		"a negative length":          {plain, "application/connect+proto\r\nContent-Length: -1\r\n\r\n", started(7)},
		"a stream of nothing":        {streaming},
		"half an envelope":           {streaming, "\x00\x00"},
		"half a message":             {streaming, started(7), exited(0)[:6]},
		"a message of 4 GiB":         {streaming, started(7), "\x00\xff\xff\xff\xff", strings.Repeat("x", megabyte)},
		"a message over the limit":   {streaming, started(7), stdout(strings.Repeat("x", maxMessage))},
		"no protobuf":                {streaming, envelope(0, "\xff\xff\xff\xff")},
		"an end without a start":     {streaming, exited(0)},
		"output without a start":     {streaming, stdout("x"), started(7), exited(0)},
		"a keepalive before":         {streaming, keptAlive(), started(7), exited(0)},
		"an empty message":           {streaming, envelope(0, ""), started(7), exited(0)},
		"a start without a pid":      {streaming, started(0), exited(0)},
		"two starts":                 {streaming, started(7), started(7), exited(0)},
		"another start":              {streaming, started(7), started(8), exited(0)},
		"no end":                     {streaming, started(7), stdout("x"), over},
		"nothing but the last word":  {streaming, over},
		"no last word":               {streaming, started(7), stdout("x")},
		"a last word that is wrong":  {streaming, started(7), envelope(2, "\x1b[31m")},
		"an endless last word":       {streaming, started(7), envelope(2, `{"metadata":{"x":["`+strings.Repeat("y", maxMessage)+`"]}}`)},
		"a deep last word":           {streaming, started(7), envelope(2, strings.Repeat(`{"error":`, megabyte/10))},
		"an unknown code":            {streaming, started(7), envelope(2, `{"error":{"code":"fine","message":"all is well"}}`)},
		"endless trailers":           {plain, "application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", strings.Repeat("A: b\r\n", megabyte)},
		"a status in bad words":      {"HTTP/1.1 500 \x1b[2J\x07\r\nContent-Type: text/plain\r\n\r\nno"},
		"canceled, which nobody did": {streaming, started(7), envelope(2, `{"error":{"code":"canceled"}}`)},
		"late, which nobody set":     {streaming, started(7), envelope(2, `{"error":{"code":"deadline_exceeded"}}`)},
	} {
		t.Run(name, func(t *testing.T) {
			g := starting(func(c *call) { c.says(answer...) })
			bubble(t, g, func(t *testing.T, c *Client) {
				res, err := c.Run(t.Context(), Command{Cmd: "true", Stdout: io.Discard})
				if !errors.Is(err, errs.ErrUnavailable) {
					t.Errorf("Run = %+v, %v, want ErrUnavailable", res, err)
				}
				printable(t, err)
				if got := g.dialed(); got > 2 {
					t.Errorf("the guest made the host connect %d times", got)
				}
			})
		})
	}
}

// TestEnds reads how a command ended, or refuses what can't be.
func TestEnds(t *testing.T) {
	type end = processpb.ProcessEvent_EndEvent
	for _, c := range []struct {
		end  *end
		want Result
	}{
		{&end{Exited: true}, Result{Status: "exit status 0"}},
		{&end{Exited: true, ExitCode: 255, Status: "\x1b[2J all is well"}, Result{ExitCode: 255, Status: "exit status 255"}},
		{&end{Exited: true, ExitCode: 9, Status: "signal: killed"}, Result{ExitCode: 9, Status: "exit status 9"}},
		{&end{ExitCode: -1, Status: "signal: killed"}, Result{ExitCode: -1, Signal: syscall.SIGKILL, Status: "signal: killed"}},
		{&end{ExitCode: 0, Status: "signal: terminated"}, Result{ExitCode: -1, Signal: syscall.SIGTERM, Status: "signal: terminated"}},
		{&end{Status: "signal: segmentation fault (core dumped)"},
			Result{ExitCode: -1, Signal: syscall.SIGSEGV, Status: "signal: segmentation fault"}},
		{&end{Status: "signal: signal 64"}, Result{ExitCode: -1, Signal: 64, Status: "signal: signal 64"}},
		{&end{Exited: true, ExitCode: -1}, Result{}},
		{&end{Exited: true, ExitCode: 256}, Result{}},
		{&end{Exited: true, ExitCode: math.MaxInt32}, Result{}},
		{&end{Exited: true, ExitCode: math.MinInt32}, Result{}},
		{&end{}, Result{}},
		{&end{Status: "exit status 0"}, Result{}},
		{&end{Status: "signal: "}, Result{}},
		{&end{Status: "signal: signal 65"}, Result{}},
		{&end{Status: "signal: signal 0"}, Result{}},
		{&end{Status: "signal: killed\x1b[2J"}, Result{}},
		{&end{Status: "signal: \u202e" + strings.Repeat("\x07", megabyte)}, Result{}},
	} {
		g := starting(func(call *call) { call.says(streaming, started(7), ended(c.end), over) })
		bubble(t, g, func(t *testing.T, client *Client) {
			got, err := client.Run(t.Context(), Command{Cmd: "true"})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%.100v (-want +got):\n%s", c.end, diff)
			}
			if refused := c.want == (Result{}); refused != errors.Is(err, errs.ErrUnavailable) || refused != (err != nil) {
				t.Errorf("%.100v: the error is %v", c.end, err)
			}
			printable(t, err)
		})
	}
}

// TestNothingCountsAfterTheEnd has a guest go on after a command's end, or keep the stream open without a word.
func TestNothingCountsAfterTheEnd(t *testing.T) {
	for name, after := range map[string]func(c *call){
		"another end":  func(c *call) { c.says(exited(4), over) },
		"output":       func(c *call) { c.says(stdout("late"), over) },
		"a failure":    func(c *call) { c.says(envelope(2, `{"error":{"code":"internal"}}`)) },
		"silence":      (*call).hangs,
		"an open end":  func(c *call) { c.says("\x02\x00\x00"); c.hangs() },
		"endless talk": func(c *call) { _, _ = io.Copy(c, zeros{}) },
	} {
		t.Run(name, func(t *testing.T) {
			g := starting(func(c *call) { c.says(streaming, started(7), exited(3)); after(c) })
			bubble(t, g, func(t *testing.T, c *Client) {
				var out strings.Builder
				d := lasts(func() {
					if res, err := c.Run(t.Context(), Command{Cmd: "true", Stdout: &out}); err != nil || res.ExitCode != 3 {
						t.Errorf("Run = %+v, %v", res, err)
					}
				})
				if d != 0 || out.Len() != 0 {
					t.Errorf("the end was believed after %v and output %q", d, &out)
				}
			})
		})
	}
}

// TestASilentGuestIsGivenUp stops talking at every place.
func TestASilentGuestIsGivenUp(t *testing.T) {
	message := stdout("hello")
	for name, say := range map[string][]string{
		"before the head":      {},
		"within the head":      {"HTTP/1.1 200 OK\r\nConte"},
		"before the start":     {streaming},
		"within an envelope":   {streaming, started(7)[:3]},
		"after the start":      {streaming, started(7)},
		"within a message":     {streaming, started(7), message[:len(message)-2]},
		"after some output":    {streaming, started(7), message, message},
		"within the last word": {streaming, started(7), over[:6]},
	} {
		t.Run(name, func(t *testing.T) {
			g := starting(func(c *call) { c.says(say...); c.hangs() })
			bubble(t, g, func(t *testing.T, c *Client) {
				var err error
				d := lasts(func() { _, err = c.Run(t.Context(), Command{Cmd: "true"}) })
				if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "silent") {
					t.Errorf("Run = %v", err)
				}
				if d != silence {
					t.Errorf("given up after %v, want %v", d, silence)
				}
			})
		})
	}
}

// TestATrickleIsNoMessage sends a message a byte at a time: it is the message that has a time, not the byte.
func TestATrickleIsNoMessage(t *testing.T) {
	g := starting(func(c *call) {
		c.says(streaming, started(7))
		for _, b := range []byte(stdout("a long message, too long to be taken byte by byte")) {
			if time.Sleep(silence / 20); func() error { _, err := c.Write([]byte{b}); return err }() != nil {
				return
			}
		}
		c.hangs()
	})
	bubble(t, g, func(t *testing.T, c *Client) {
		var out strings.Builder
		_, err := c.Run(t.Context(), Command{Cmd: "true", Stdout: &out})
		if !errors.Is(err, errs.ErrUnavailable) || out.Len() > 0 {
			t.Errorf("Run = %v with output %q", err, &out)
		}
	})
}

// TestKeepalivesKeepARunAlive runs a command for a day that says nothing.
func TestKeepalivesKeepARunAlive(t *testing.T) {
	g := starting(func(c *call) {
		c.says(streaming, started(7))
		for range int(24 * time.Hour / keepalive) {
			time.Sleep(keepalive)
			c.says(keptAlive())
		}
		c.says(exited(0), over)
	})
	bubble(t, g, func(t *testing.T, c *Client) {
		d := lasts(func() {
			if res, err := c.Run(t.Context(), Command{Cmd: "sleep"}); err != nil || res.ExitCode != 0 {
				t.Errorf("Run = %+v, %v", res, err)
			}
		})
		if d != 24*time.Hour {
			t.Errorf("it ran %v", d)
		}
		if got := g.called("Start")[0].header.Get("Keepalive-Ping-Interval"); got != fmt.Sprint(keepalive.Seconds()) {
			t.Errorf("keepalives are asked for every %q seconds", got)
		}
	})
}

// blocking is a writer that takes nothing until it may, and then fails or not.
type blocking struct {
	may chan struct{}
	err error
	n   int
}

func (b *blocking) Write(p []byte) (int, error) {
	<-b.may
	b.n += len(p)
	return len(p), b.err
}

// TestFloodIsBounded has a guest write without end to a writer that takes nothing: the guest is stopped after a little more than
// one message, for as long as it takes.
func TestFloodIsBounded(t *testing.T) {
	const message = 32 << 10
	var sent int64
	g := starting(func(c *call) {
		c.says(streaming, started(7))
		for piece := stdout(strings.Repeat("x", message)); ; {
			n, err := io.WriteString(c, piece)
			if sent += int64(n); err != nil {
				return
			}
		}
	})
	bubble(t, g, func(t *testing.T, c *Client) {
		out, full := &blocking{may: make(chan struct{}), err: errors.New("the disk is full")}, make(chan error)
		go func() {
			_, err := c.Run(t.Context(), Command{Cmd: "yes", Stdout: out})
			full <- err
		}()
		time.Sleep(24 * time.Hour) // much longer than a guest may be silent
		synctest.Wait()
		if sent > 4*message {
			t.Errorf("the guest could send %d bytes to a writer that took nothing", sent)
		}
		close(out.may)
		if err := <-full; !errors.Is(err, out.err) {
			t.Errorf("Run = %v, want the writer's error", err)
		}
		kills := g.called("SendSignal")
		if len(kills) != 1 || request[processpb.SendSignalRequest](t, kills[0]).GetSignal() != processpb.Signal_SIGNAL_SIGKILL {
			t.Errorf("%d signals were sent to the command whose output could not be written", len(kills))
		}
	})
}

// TestErrorsAreClean has a guest put everything into its errors.
func TestErrorsAreClean(t *testing.T) {
	for code, kind := range map[string]error{
		"invalid_argument": errs.ErrInvalid, "out_of_range": errs.ErrInvalid, "not_found": errs.ErrNotFound,
		"already_exists": errs.ErrAlreadyExists, "failed_precondition": errs.ErrFailedPrecondition,
		"unimplemented": errs.ErrFailedPrecondition, "resource_exhausted": errs.ErrResourceExhausted,
		"unauthenticated": errs.ErrUnauthenticated, "permission_denied": errs.ErrPermissionDenied,
		"unavailable": errs.ErrUnavailable, "internal": errs.ErrUnavailable, "unknown": errs.ErrUnavailable,
		"data_loss": errs.ErrUnavailable, "aborted": errs.ErrUnavailable,
	} {
		message := `no \u001b[2J\u0007\r\n\u202e\ufeff\u0000` + strings.Repeat("x", megabyte)
		g := starting(func(c *call) {
			c.says(streaming, envelope(2, fmt.Sprintf(`{"error":{"code":%q,"message":"%s"}}`, code, message)))
		})
		bubble(t, g, func(t *testing.T, c *Client) {
			_, err := c.Run(t.Context(), Command{Cmd: "true"})
			if !errors.Is(err, kind) || !strings.HasPrefix(fmt.Sprint(err), `guest: no \u001b[2J\u0007\u000d\u000a\u202e\ufeff\u0000xxx`) {
				t.Errorf("%s: Run = %.200v, want %v", code, err, kind)
			}
			printable(t, err)
		})
	}
}
