package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// taken is all the input that a guest got.
func taken(t *testing.T, g *guest) string {
	t.Helper()
	var b strings.Builder
	for _, c := range g.called("SendInput") {
		in := request[processpb.SendInputRequest](t, c)
		if pid := in.GetProcess().GetPid(); pid != 7 {
			t.Errorf("input for pid %d", pid)
		}
		b.Write(in.GetInput().GetStdin())
		b.Write(in.GetInput().GetPty())
	}
	return b.String()
}

// reading is a guest whose command ends when it has seen the end of its input.
func reading(method string) func() *guest {
	return func() *guest {
		return lasting(func(c *call, end chan<- string) bool {
			if c.method == method && (method == "CloseStdin" || bytes.Contains(c.body, endOfTerminal)) {
				end <- exited(0)
			}
			return c.fine()
		})
	}
}

// TestInputIsSentInPieces gives a command more than fits one message, and then the end.
func TestInputIsSentInPieces(t *testing.T) {
	made(t, reading("CloseStdin"), func(t *testing.T, g *guest, c *Client) {
		input := strings.Repeat("0123456789abcdef", feedBytes/4)
		if res, err := c.Run(t.Context(), Command{Cmd: "cat", Stdin: strings.NewReader(input)}); err != nil || res.ExitCode != 0 {
			t.Fatalf("Run = %+v, %v", res, err)
		}
		if got := taken(t, g); got != input {
			t.Errorf("of %d bytes the guest got %d", len(input), len(got))
		}
		if closes := g.called("CloseStdin"); len(closes) != 1 {
			t.Errorf("the input was closed %d times", len(closes))
		}
	})
}

// TestATerminalIsClosedByAKey: a terminal has no end but Ctrl-D.
func TestATerminalIsClosedByAKey(t *testing.T) {
	made(t, reading("SendInput"), func(t *testing.T, g *guest, c *Client) {
		cmd := Command{Cmd: "cat", PTY: &Size{80, 24}, Stdin: strings.NewReader("ls\r")}
		if _, err := c.Run(t.Context(), cmd); err != nil {
			t.Fatal(err)
		}
		if got := taken(t, g); got != "ls\r\x04" || len(g.called("CloseStdin")) > 0 {
			t.Errorf("the terminal got %q", got)
		}
	})
}

// TestInputFails: what a command could not be given ends the run, unless the command has ended or wants no more.
func TestInputFails(t *testing.T) {
	for code, ends := range map[string]bool{
		"internal": true, "unavailable": true, "resource_exhausted": true, "invalid_argument": true, "canceled": true, "deadline_exceeded": true,
		"not_found": false, "failed_precondition": false,
	} {
		t.Run(code, func(t *testing.T) {
			last := func() *guest {
				return lasting(func(c *call, end chan<- string) bool {
					if c.method != "SendInput" {
						return c.fine()
					}
					if !ends {
						end <- exited(0)
					}
					return c.fails(400, code, "no\x07")
				})
			}
			made(t, last, func(t *testing.T, g *guest, c *Client) {
				_, err := c.Run(t.Context(), Command{Cmd: "cat", Stdin: strings.NewReader("hello")})
				if (err != nil) != ends {
					t.Errorf("Run = %v", err)
				}
				printable(t, err)
				if got := len(g.called("SendSignal")) == 1; got != ends {
					t.Errorf("the command was killed: %v, want %v", got, ends)
				}
			})
		})
	}
}

// TestInputIsNotWaitedFor: a command ends although nobody takes its input, or gives it any.
func TestInputIsNotWaitedFor(t *testing.T) {
	stuck := func() *guest {
		return lasting(func(c *call, end chan<- string) bool {
			if c.method == "SendInput" {
				end <- exited(0)
				c.hangs()
			}
			return c.fine()
		})
	}
	made(t, stuck, func(t *testing.T, _ *guest, c *Client) {
		if _, err := c.Run(t.Context(), Command{Cmd: "true", Stdin: zeros{}}); err != nil {
			t.Errorf("input that is not taken: %v", err)
		}
	})
	g := starting(func(c *call) { c.says(streaming, started(7), exited(0), over) })
	bubble(t, g, func(t *testing.T, c *Client) {
		r, w := io.Pipe()
		defer w.Close() // ends the Read that is under way
		if _, err := c.Run(t.Context(), Command{Cmd: "true", Stdin: r}); err != nil {
			t.Errorf("input that does not come: %v", err)
		}
	})
}

// TestSteering passes sizes and signals on, in their order.
func TestSteering(t *testing.T) {
	last := func() *guest {
		return lasting(func(c *call, end chan<- string) bool {
			if c.method == "SendSignal" && request[processpb.SendSignalRequest](t, c).GetSignal() == 9 {
				end <- signaled("signal: killed")
			}
			return c.fine()
		})
	}
	made(t, last, func(t *testing.T, g *guest, c *Client) {
		sizes, signals := make(chan Size), make(chan syscall.Signal)
		go func() {
			sizes <- Size{Cols: 100, Rows: 50}
			close(sizes)
			signals <- syscall.SIGTERM
			signals <- syscall.SIGKILL
			close(signals)
		}()
		cmd := Command{Cmd: "sh", PTY: &Size{80, 24}, Resize: sizes, Signals: signals}
		res, err := c.Run(t.Context(), cmd)
		if err != nil || res != (Result{ExitCode: -1, Signal: syscall.SIGKILL, Status: "signal: killed"}) {
			t.Errorf("Run = %+v, %v", res, err)
		}
		update := request[processpb.UpdateRequest](t, g.called("Update")[0])
		if size := update.GetPty().GetSize(); update.GetProcess().GetPid() != 7 || size.GetCols() != 100 || size.GetRows() != 50 {
			t.Errorf("sent %v", update)
		}
		var sent []processpb.Signal
		for _, s := range g.called("SendSignal") {
			sent = append(sent, request[processpb.SendSignalRequest](t, s).GetSignal())
		}
		if fmt.Sprint(sent) != "[SIGNAL_SIGTERM SIGNAL_SIGKILL]" {
			t.Errorf("sent %v", sent)
		}
	})
}

// TestSteeringFails: a signal that can't be passed on ends the run.
func TestSteeringFails(t *testing.T) {
	made(t, refusing, func(t *testing.T, g *guest, c *Client) {
		signals := make(chan syscall.Signal, 1)
		signals <- syscall.SIGTERM
		if _, err := c.Run(t.Context(), Command{Cmd: "sh", Signals: signals}); !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("Run = %v", err)
		}
	})
}

// TestRunsSideBySide has one client run many commands at once.
func TestRunsSideBySide(t *testing.T) {
	g := starting(func(c *call) {
		c.says(streaming, started(7), stdout(request[processpb.StartRequest](t, c).GetProcess().GetCmd()))
		time.Sleep(time.Minute)
		c.says(exited(0), over)
	})
	bubble(t, g, func(t *testing.T, c *Client) {
		const runs = 20
		d := lasts(func() {
			var group sync.WaitGroup
			for i := range runs {
				group.Go(func() {
					var out strings.Builder
					if _, err := c.Run(t.Context(), Command{Cmd: fmt.Sprint(i), Stdout: &out}); err != nil || out.String() != fmt.Sprint(i) {
						t.Errorf("run %d: %q, %v", i, &out, err)
					}
				})
			}
			group.Wait()
		})
		if d != time.Minute {
			t.Errorf("all took %v", d)
		}
	})
}
