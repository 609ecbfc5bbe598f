package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestExec(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create()
	text := strings.Repeat("what goes in comes out\n", 5000)
	var out, errOut bytes.Buffer
	r, err := w.Exec(t.Context(), &pb.ExecRequest{Id: id, Cmd: "x"}, client.Streams{Stdin: strings.NewReader(text), Stdout: &out, Stderr: &errOut})
	if err != nil || r.ExitCode != 3 || out.String() != text || errOut.String() != text {
		t.Errorf("%+v, %v, %d and %d bytes", r, err, out.Len(), errOut.Len())
	}
	signals := make(chan syscall.Signal, 1)
	signals <- syscall.SIGTERM
	if r, err := w.Exec(t.Context(), &pb.ExecRequest{Id: id, Cmd: "x"}, client.Streams{Signals: signals}); err != nil || r.Signal != syscall.SIGTERM {
		t.Errorf("%+v, %v", r, err)
	}
	sizes := make(chan *pb.TerminalSize, 1)
	sizes <- &pb.TerminalSize{Cols: 99, Rows: 1}
	r, err = w.Exec(t.Context(), &pb.ExecRequest{Id: id, Cmd: "x", Terminal: &pb.TerminalSize{Cols: 80, Rows: 25}}, client.Streams{Resize: sizes})
	if err != nil || r.ExitCode != 99 {
		t.Errorf("%+v, %v", r, err)
	}
	if list, err := w.Processes.ListProcesses(t.Context(), connect.NewRequest(&pb.ListProcessesRequest{Id: id})); err != nil ||
		len(list.Msg.GetProcesses()) != 1 || list.Msg.GetProcesses()[0].GetCmd() != "sleep" {
		t.Error(list, err)
	}
	if _, err := w.Exec(t.Context(), &pb.ExecRequest{Id: nobody, Cmd: "x"}, client.Streams{}); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if _, err := w.Exec(t.Context(), &pb.ExecRequest{Id: id}, client.Streams{}); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

func TestAttach(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create()
	stream, err := w.Processes.Attach(t.Context(), connect.NewRequest(&pb.AttachRequest{Id: id, Pid: 7}))
	if err != nil || !stream.Receive() || stream.Msg().GetEvent().GetStarted().GetPid() != 7 {
		t.Fatal(err, stream.Err())
	}
	defer stream.Close()
	if _, err := w.Processes.Signal(t.Context(), connect.NewRequest(&pb.SignalRequest{Id: id, Pid: 7, Signal: 9})); err != nil {
		t.Error(err)
	}
	if !stream.Receive() || stream.Msg().GetEvent().GetEnded().GetSignal() != 9 {
		t.Error(stream.Msg(), stream.Err())
	}
}

// TestWhoLeavesACommand in the midst of its output leaves it running, or kills it, as was asked.
func TestWhoLeavesACommand(t *testing.T) {
	for _, kill := range []bool{false, true} {
		w := newWorld(t, quota.Amount{})
		id := w.create()
		ctx, hangUp := context.WithCancel(t.Context())
		stream, err := w.Processes.Exec(ctx, connect.NewRequest(&pb.ExecRequest{Id: id, Cmd: "x", KillOnHangup: kill}))
		if err != nil || !stream.Receive() {
			t.Fatal(err, stream.Err())
		}
		hangUp()
		_ = stream.Close()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			w.guest.mu.Lock()
			left := w.guest.killed
			w.guest.mu.Unlock()
			if len(left) == 1 {
				if errors.Is(left[0], errs.ErrUnavailable) == kill {
					t.Errorf("kill %v: the command was told %v", kill, left[0])
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the command was told nothing")
			}
		}
	}
}

// TestACallerThatDoesNotRead makes the command wait: nothing piles up in the agent.
func TestACallerThatDoesNotRead(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx, hangUp := context.WithCancel(t.Context())
	stream, err := w.Processes.Exec(ctx, connect.NewRequest(&pb.ExecRequest{Id: w.create(), Cmd: "flood"}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	for last := int64(-1); last != w.guest.wrote.Load(); time.Sleep(200 * time.Millisecond) {
		if last = w.guest.wrote.Load(); last > 64<<20 {
			t.Fatalf("%d bytes went where nobody reads", last)
		}
	}
	hangUp()
	_ = stream.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		w.guest.mu.Lock()
		left := len(w.guest.killed)
		w.guest.mu.Unlock()
		if left == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the command was told nothing")
		}
	}
}
