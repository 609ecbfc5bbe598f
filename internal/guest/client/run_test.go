package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// lasting is a guest with one command, pid 7, that lasts until somebody ends it: the function answers all calls but Start, and gives
// the command's end to the channel.
func lasting(others func(c *call, end chan<- string) bool) *guest {
	end := make(chan string, 1)
	return &guest{answer: func(c *call) bool {
		if c.method != "Start" {
			return others(c, end)
		}
		c.says(streaming, started(7))
		gone := make(chan struct{})
		go func() { c.hangs(); close(gone) }()
		select {
		case text := <-end:
			c.says(text, over)
		case <-gone:
		}
		return false
	}}
}

// obedient is such a guest whose command dies of the signal that it is sent.
func obedient(t *testing.T) func() *guest {
	return func() *guest {
		return lasting(func(c *call, end chan<- string) bool {
			if c.method == "SendSignal" {
				end <- signaled("signal: " + syscall.Signal(request[processpb.SendSignalRequest](t, c).GetSignal()).String())
			}
			return c.fine()
		})
	}
}

// deaf is such a guest that answers nothing more.
func deaf() *guest { return lasting(func(c *call, _ chan<- string) bool { c.hangs(); return false }) }

// refusing is such a guest that refuses everything.
func refusing() *guest {
	return lasting(func(c *call, _ chan<- string) bool { return c.fails(500, "internal", "no") })
}

// mute is a guest that takes a command and never says that it has started.
func mute() *guest { return starting((*call).hangs) }

// made makes a guest in the bubble where its channels belong.
func made(t *testing.T, makeGuest func() *guest, test func(t *testing.T, g *guest, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := makeGuest()
		c := New(g.dial, token)
		test(t, g, c)
		c.Close()
		time.Sleep(2 * lateness)
	})
}

// TestContextEndsACommand ends the context of a run an hour after its start, in a guest that obeys and in those that don't.
func TestContextEndsACommand(t *testing.T) {
	why, gone := errors.New("enough"), fmt.Errorf("the machine died: %w", errs.ErrUnavailable)
	for name, c := range map[string]struct {
		guest   func() *guest
		cause   error
		within  time.Duration
		signals int
	}{
		"obedient":             {obedient(t), why, 0, 1},
		"deaf":                 {deaf, why, lateness, 1},
		"refusing":             {refusing, why, lateness, 1},
		"mute":                 {mute, why, lateness, 0},
		"obedient, and gone":   {obedient(t), gone, 0, 0},
		"deaf, and gone":       {deaf, gone, 0, 0},
		"not started and gone": {mute, gone, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			made(t, c.guest, func(t *testing.T, g *guest, client *Client) {
				ctx, cancel := context.WithCancelCause(t.Context())
				const after = time.Minute
				time.AfterFunc(after, func() { cancel(c.cause) })
				var err error
				d := lasts(func() { _, err = client.Run(ctx, Command{Cmd: "sleep"}) })
				if !errors.Is(err, c.cause) || d != after+c.within {
					t.Errorf("Run = %v after %v, want %v after %v", err, d, c.cause, after+c.within)
				}
				printable(t, err)
				kills := g.called("SendSignal")
				if len(kills) != c.signals {
					t.Fatalf("%d signals were sent, want %d", len(kills), c.signals)
				}
				for _, k := range kills {
					got := request[processpb.SendSignalRequest](t, k)
					if got.GetProcess().GetPid() != 7 || got.GetSignal() != processpb.Signal_SIGNAL_SIGKILL {
						t.Errorf("sent %v", got)
					}
				}
			})
		})
	}
}

// TestAContextThatHasEnded starts nothing that stays.
func TestAContextThatHasEnded(t *testing.T) {
	made(t, obedient(t), func(t *testing.T, g *guest, c *Client) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Run(ctx, Command{Cmd: "sleep"}); !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		if got := len(g.called("SendSignal")); got != len(g.called("Start")) {
			t.Errorf("of %d commands %d were killed", len(g.called("Start")), got)
		}
	})
}

// TestAnEndBeatsTheContext: a command that ends by itself has a result, although its context has ended.
func TestAnEndBeatsTheContext(t *testing.T) {
	last := func() *guest {
		return lasting(func(c *call, end chan<- string) bool { end <- exited(5); return c.fine() })
	}
	made(t, last, func(t *testing.T, _ *guest, c *Client) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if res, err := c.Run(ctx, Command{Cmd: "sleep"}); err != nil || res.ExitCode != 5 {
			t.Errorf("Run = %+v, %v", res, err)
		}
	})
}

// TestTimeout gives commands two minutes, in guests that keep to it and in those that don't.
func TestTimeout(t *testing.T) {
	const timeout = 2 * time.Minute
	punctual := func() *guest {
		return starting(func(c *call) {
			c.says(streaming, started(7))
			time.Sleep(timeout)
			c.says(envelope(2, `{"error":{"code":"deadline_exceeded","message":"killed"}}`))
		})
	}
	for name, c := range map[string]struct {
		guest  func() *guest
		within time.Duration
	}{
		"punctual": {punctual, 0}, "obedient": {obedient(t), lateness}, "deaf": {deaf, 2 * lateness}, "mute": {mute, lateness},
	} {
		t.Run(name, func(t *testing.T) {
			made(t, c.guest, func(t *testing.T, g *guest, client *Client) {
				var err error
				d := lasts(func() { _, err = client.Run(t.Context(), Command{Cmd: "sleep", Timeout: timeout}) })
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2m0s") || d != timeout+c.within {
					t.Errorf("Run = %v after %v, want DeadlineExceeded after %v", err, d, timeout+c.within)
				}
				if got := g.called("Start")[0].header.Get("Connect-Timeout-Ms"); got != "120000" {
					t.Errorf("the guest was given %q milliseconds", got)
				}
			})
		})
	}
}

// TestTimeoutHeader fits every timeout into what the protocol can hold.
func TestTimeoutHeader(t *testing.T) {
	for timeout, want := range map[time.Duration]string{
		0: "", -time.Second: "", 1: "1", time.Millisecond + 1: "1", time.Minute: "60000", maxTimeout: "9999999999", maxTimeout + 1: "",
	} {
		g := starting(func(c *call) { c.says(streaming, started(7), exited(0), over) })
		bubble(t, g, func(t *testing.T, c *Client) {
			if _, err := c.Run(t.Context(), Command{Cmd: "true", Timeout: timeout}); err != nil {
				t.Error(err)
			}
			if got := g.called("Start")[0].header.Get("Connect-Timeout-Ms"); got != want {
				t.Errorf("%v: the header is %q, want %q", timeout, got, want)
			}
		})
	}
}

// TestTheWholeCommandIsSent reads what the guest gets.
func TestTheWholeCommandIsSent(t *testing.T) {
	g := starting(func(c *call) { c.says(streaming, started(7), exited(0), over) })
	bubble(t, g, func(t *testing.T, c *Client) {
		cmd := Command{Cmd: "tar", Args: []string{"-x", "", "ü"}, Env: map[string]string{"K": "v"}, Cwd: "/srv", User: "root",
			PTY: &Size{Cols: 80, Rows: 24}, Stdin: strings.NewReader("")}
		if _, err := c.Run(t.Context(), cmd); err != nil {
			t.Fatal(err)
		}
		start := g.called("Start")[0]
		got := request[processpb.StartRequest](t, start)
		p, size := got.GetProcess(), got.GetPty().GetSize()
		if p.GetCmd() != "tar" || p.GetCwd() != "/srv" || size.GetCols() != 80 || size.GetRows() != 24 || !got.GetStdin() {
			t.Errorf("sent %v", got)
		}
		if diff := cmp.Diff(cmd.Args, p.GetArgs()) + cmp.Diff(cmd.Env, p.GetEnvs()); diff != "" {
			t.Error(diff)
		}
		if user, _, _ := (&http.Request{Header: start.header}).BasicAuth(); user != "root" {
			t.Errorf("the user is %q", user)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, call := range g.calls {
			if got := call.header.Get("X-Access-Token"); got != token {
				t.Errorf("%s was called with the token %q", call.method, got)
			}
		}
	})
}

// TestNothingIsSentThatWasNotAsked: what a command does not say is left to the guest.
func TestNothingIsSentThatWasNotAsked(t *testing.T) {
	g := starting(func(c *call) { c.says(streaming, started(7), exited(0), over) })
	bubble(t, g, func(t *testing.T, c *Client) {
		if _, err := c.Run(t.Context(), Command{Cmd: "true"}); err != nil {
			t.Fatal(err)
		}
		start := g.called("Start")[0]
		got := request[processpb.StartRequest](t, start)
		if got.GetProcess().Cwd != nil || got.Pty != nil || got.Tag != nil || got.Stdin == nil || got.GetStdin() {
			t.Errorf("sent %v", got)
		}
		if start.header.Get("Authorization") != "" || len(g.calls) != 1 {
			t.Errorf("sent %v and %d calls", start.header, len(g.calls))
		}
	})
}

// TestWhatCanNotBeSent is refused before the guest hears of it.
func TestWhatCanNotBeSent(t *testing.T) {
	const bad = "a\xff"
	for name, cmd := range map[string]Command{
		"command": {Cmd: bad}, "argument": {Cmd: "a", Args: []string{"b", bad}}, "folder": {Cmd: "a", Cwd: bad},
		"variable": {Cmd: "a", Env: map[string]string{bad: ""}}, "value": {Cmd: "a", Env: map[string]string{"A": bad}},
		"user": {Cmd: "a", User: "root:x"},
	} {
		g := starting((*call).hangs)
		bubble(t, g, func(t *testing.T, c *Client) {
			_, err := c.Run(t.Context(), cmd)
			if !errors.Is(err, errs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), name) || g.dialed() > 0 {
				t.Errorf("%s: Run = %v after %d connections", name, err, g.dialed())
			}
			printable(t, err)
		})
	}
}

func TestOutputGoesWhereItBelongs(t *testing.T) {
	data := func(d *processpb.ProcessEvent_DataEvent) string {
		return event(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_Data{Data: d}})
	}
	say := []string{streaming, started(7), stdout("one "),
		data(&processpb.ProcessEvent_DataEvent{Output: &processpb.ProcessEvent_DataEvent_Stderr{Stderr: []byte("\x1b[2J")}}),
		data(&processpb.ProcessEvent_DataEvent{Output: &processpb.ProcessEvent_DataEvent_Pty{Pty: []byte("two")}}),
		data(&processpb.ProcessEvent_DataEvent{}), stdout(""), keptAlive(), exited(0), over}
	g := starting(func(c *call) { c.says(say...) })
	bubble(t, g, func(t *testing.T, c *Client) {
		var out, err strings.Builder
		if _, fault := c.Run(t.Context(), Command{Cmd: "true", Stdout: &out, Stderr: &err}); fault != nil {
			t.Fatal(fault)
		}
		if out.String() != "one two" || err.String() != "\x1b[2J" {
			t.Errorf("got %q and %q", &out, &err)
		}
		if _, fault := c.Run(t.Context(), Command{Cmd: "true"}); fault != nil {
			t.Errorf("nobody wants the output: %v", fault)
		}
	})
}
