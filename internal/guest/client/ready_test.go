package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// ready is a guest that answers as it should.
func ready() *guest { return &guest{answer: (*call).fine} }

// within runs a test of WaitReady, with a client that connects by dial, on a clock of its own.
func within(t *testing.T, dial DialFunc, test func(t *testing.T, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(dial, token)
		test(t, c)
		c.Close()
	})
}

func TestReadyAtOnce(t *testing.T) {
	g := ready()
	bubble(t, g, func(t *testing.T, c *Client) {
		d := lasts(func() {
			if err := c.WaitReady(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if d != 0 || g.dialed() != 1 || len(g.calls) != 1 {
			t.Errorf("it took %v, %d connections and %d calls", d, g.dialed(), len(g.calls))
		}
	})
}

// late is a guest that is not ready before a time on the bubble's clock: until then it dials and answers as a test wants.
type late struct {
	guest  *guest
	at     time.Time
	dial   func(ctx context.Context) error
	answer func(c *call) bool
}

func (l *late) connect(ctx context.Context, port int) (net.Conn, error) {
	if l.dial != nil && time.Now().Before(l.at) {
		return nil, l.dial(ctx)
	}
	return l.guest.dial(ctx, port)
}

func (l *late) say(c *call) bool {
	if l.answer != nil && time.Now().Before(l.at) {
		return l.answer(c)
	}
	return c.fine()
}

// TestWaitingLosesLittle: a guest that begins to answer at some time, after it refused, ignored or misled the host, is ready a short
// part of that time later.
func TestWaitingLosesLittle(t *testing.T) {
	for name, before := range map[string]late{
		"refused":     {dial: func(context.Context) error { return syscall.ECONNREFUSED }},
		"not there":   {dial: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		"closed":      {answer: func(*call) bool { return false }},
		"garbage":     {answer: func(c *call) bool { c.says("SSH-2.0\r\n"); return false }},
		"no token":    {answer: func(c *call) bool { return c.fails(503, "unavailable", "the token is not known yet") }},
		"not an envd": {answer: func(c *call) bool { c.says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"); return true }},
	} {
		for _, wait := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second, time.Minute, 20 * time.Minute} {
			t.Run(fmt.Sprint(name, " for ", wait), func(t *testing.T) {
				l := before
				l.guest = &guest{answer: l.say}
				within(t, l.connect, func(t *testing.T, c *Client) {
					l.at = time.Now().Add(wait)
					d := lasts(func() {
						if err := c.WaitReady(t.Context()); err != nil {
							t.Error(err)
						}
					})
					if lost := d - wait; lost < 0 || lost > wait/10+20*time.Millisecond {
						t.Errorf("ready %v after the guest was", lost)
					}
				})
			})
		}
	}
}

// TestAConnectionThatIsNotAnsweredIsGivenUp: a guest may take a connection and forget it.
func TestAConnectionThatIsNotAnsweredIsGivenUp(t *testing.T) {
	var forgotten atomic.Int32
	g := &guest{}
	g.answer = func(c *call) bool {
		if forgotten.Add(1) <= 3 {
			c.hangs()
			return false
		}
		return c.fine()
	}
	bubble(t, g, func(t *testing.T, c *Client) {
		d := lasts(func() {
			if err := c.WaitReady(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if d < 3*callAtLeast || d > 5*callAtLeast {
			t.Errorf("it took %v", d)
		}
	})
}

// TestAttemptsAreBounded counts the attempts that are under way at once to a guest that never answers.
func TestAttemptsAreBounded(t *testing.T) {
	var now, most, all atomic.Int32
	dial := func(ctx context.Context, _ int) (net.Conn, error) {
		all.Add(1)
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	within(t, dial, func(t *testing.T, c *Client) {
		slow := fmt.Errorf("it took too long: %w", errs.ErrUnavailable)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, slow)
		defer cancel()
		var err error
		d := lasts(func() { err = c.WaitReady(ctx) })
		if !errors.Is(err, slow) || !strings.Contains(err.Error(), "1h0m0s") || d != time.Hour {
			t.Errorf("WaitReady = %v after %v", err, d)
		}
		if now.Load() != 0 || most.Load() > maxPending+1 || all.Load() < 3600 {
			t.Errorf("%d attempts, at most %d at once, %d are left", all.Load(), most.Load(), now.Load())
		}
	})
}

// TestLateConnectionsAreClosed: attempts that succeed after one did, or after the context ended, leave nothing open.
func TestLateConnectionsAreClosed(t *testing.T) {
	g := ready()
	var n atomic.Int32
	dial := func(ctx context.Context, port int) (net.Conn, error) {
		if n.Add(1)%4 != 0 {
			<-ctx.Done() // and connects all the same
		}
		return g.dial(ctx, port)
	}
	within(t, dial, func(t *testing.T, c *Client) { // which fails when a connection is open at the end
		if err := c.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		n.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.WaitReady(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestAnotherTokenIsSaidAtOnce: waiting does not help then.
func TestAnotherTokenIsSaidAtOnce(t *testing.T) {
	for name, answer := range map[string]func(c *call) bool{
		"envd's error": func(c *call) bool { return c.fails(401, "unauthenticated", "unauthorized access\x1b[2J") },
		"a bare 401": func(c *call) bool {
			c.says("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
			return true
		},
	} {
		g := &guest{answer: answer}
		bubble(t, g, func(t *testing.T, c *Client) {
			var err error
			if d := lasts(func() { err = c.WaitReady(t.Context()) }); !errors.Is(err, errs.ErrUnauthenticated) || d != 0 {
				t.Errorf("%s: WaitReady = %v after %v", name, err, d)
			}
			printable(t, err)
		})
	}
}

// TestWhatTheGuestSaidLastIsTold has a guest that never gets ready, and says so in bad words.
func TestWhatTheGuestSaidLastIsTold(t *testing.T) {
	g := &guest{answer: func(c *call) bool {
		return c.fails(503, "unavailable", "not \x1b[2Jyet"+strings.Repeat("!", 10*maxText))
	}}
	bubble(t, g, func(t *testing.T, c *Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := c.WaitReady(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), `not \u001b[2Jyet!!!`) {
			t.Errorf("WaitReady = %v", err)
		}
		printable(t, err)
	})
}

// TestNoConnectionIsKeptUnused: envd closes a connection on which nothing comes, and a command must not be sent on such a one. The
// guest here has no token at first, so that WaitReady makes several connections.
func TestNoConnectionIsKeptUnused(t *testing.T) {
	var n atomic.Int32
	g := &guest{}
	g.answer = func(c *call) bool {
		switch {
		case c.method == "Start":
			c.says(streaming, started(7), exited(0), over)
			return false
		case n.Add(1) < 5:
			return c.fails(503, "unavailable", "not yet")
		}
		return c.fine()
	}
	dial := func(ctx context.Context, port int) (net.Conn, error) {
		conn, err := g.dial(ctx, port)
		time.AfterFunc(time.Minute, func() { _ = conn.Close() })
		return conn, err
	}
	within(t, dial, func(t *testing.T, c *Client) {
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := c.Run(t.Context(), Command{Cmd: "true"}); err != nil {
			t.Errorf("a command some minutes later: %v", err)
		}
		time.Sleep(2 * time.Minute)
	})
}

func TestHealth(t *testing.T) {
	for answer, ok := range map[string]bool{
		"HTTP/1.1 204 No Content\r\n\r\n":                                true,
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":                   false,
		"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n":                   false,
		"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n": false,
		"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", megabyte):        false,
		"HTTP/1.1 204 No Content\r\nX: " + strings.Repeat("x", megabyte): false,
		"\x1b[2J": false, "HTTP/1.1 \x1b[2J\r\n\r\n": false, "HTTP/1.1 99999 \x1b[2J\x07\r\n\r\n": false, "": false,
	} {
		g := &guest{answer: func(c *call) bool { c.says(answer); return false }}
		bubble(t, g, func(t *testing.T, c *Client) {
			err := c.Health(t.Context())
			if (err == nil) != ok || (err != nil && !errors.Is(err, errs.ErrUnavailable)) {
				t.Errorf("%.60q: Health = %v", answer, err)
			}
			printable(t, err)
		})
	}
	g := &guest{answer: func(c *call) bool { c.hangs(); return false }}
	bubble(t, g, func(t *testing.T, c *Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Health(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no answer: Health = %v", err)
		}
	})
}
