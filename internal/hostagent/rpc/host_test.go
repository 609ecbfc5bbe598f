package rpc_test

import (
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestStatusMetricsAndLogs(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 9})
	id := w.create()
	s, err := w.Client.Host.Status(t.Context(), connect.NewRequest(&pb.StatusRequest{}))
	if err != nil || s.Msg.GetStates()["running"] != 1 || s.Msg.GetUsed().GetMemoryMib() != 256 || s.Msg.GetLimits().GetSandboxes() != 9 ||
		s.Msg.GetBoot() == "" || s.Msg.GetLastEvent() == 0 {
		t.Error(s, err)
	}
	m, err := w.Client.Host.Metrics(t.Context(), connect.NewRequest(&pb.MetricsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`wrenn_sandboxes{state="running"} 1`, `wrenn_sandboxes{state="lost"} 0`, `wrenn_limit_sandboxes 9`, `wrenn_reserved_memory_bytes 2.68435456e+08`,
		`wrenn_operations_total{operation="create",outcome="ok"} 1`, `wrenn_operation_phase_seconds_count{operation="create",phase="disk"} 1`,
		`wrenn_operation_phase_seconds_count{operation="create",phase="wake.guest"} 1`, `wrenn_state_changes_total{state="running"}`} {
		if !strings.Contains(m.Msg.GetText(), line) {
			t.Errorf("no %s in\n%s", line, m.Msg.GetText())
		}
	}
	if strings.Contains(m.Msg.GetText(), "reseed") {
		t.Error("a name that the guest chose is a label")
	}
	if _, err := w.Client.Host.Logs(t.Context(), connect.NewRequest(&pb.LogsRequest{Id: id})); err != nil {
		t.Error(err)
	}
	if _, err := w.Client.Host.Logs(t.Context(), connect.NewRequest(&pb.LogsRequest{Id: nobody})); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

// TestEvents reads them as they come, hangs up, and resumes where it was.
func TestEvents(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	w.create()
	stream, err := w.Client.Host.Events(t.Context(), connect.NewRequest(&pb.EventsRequest{}))
	if err != nil || !stream.Receive() || stream.Msg().GetKeepAlive() == nil {
		t.Fatal(err, stream.Err())
	}
	id := w.create()
	for _, want := range []pb.State{pb.State_STATE_STARTING, pb.State_STATE_RUNNING} {
		if !stream.Receive() || stream.Msg().GetStateChanged().GetChange().GetState() != want || stream.Msg().GetStateChanged().GetSandbox() != id ||
			stream.Msg().GetStateChanged().GetChange().GetReason() == "" {
			t.Fatal(stream.Msg(), stream.Err())
		}
	}
	at := stream.Msg().GetId()
	_ = stream.Close()
	other := w.create()
	if _, err := w.Sandboxes.Destroy(t.Context(), connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: "unwanted"})); err != nil {
		t.Fatal(err)
	}
	stream, err = w.Client.Host.Events(t.Context(), connect.NewRequest(&pb.EventsRequest{After: at, Id: id}))
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	defer stream.Close()
	for _, want := range []pb.State{pb.State_STATE_STOPPING, pb.State_STATE_STOPPED} {
		if !stream.Receive() || stream.Msg().GetStateChanged().GetChange().GetState() != want || stream.Msg().GetStateChanged().GetSandbox() == other ||
			stream.Msg().GetStateChanged().GetChange().GetReason() != "unwanted" {
			t.Fatal(stream.Msg(), stream.Err())
		}
	}
}

// TestAnOldCursorIsToldOfTheGap asks for what an agent before this one told.
func TestAnOldCursorIsToldOfTheGap(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	w.create()
	stream, err := w.Client.Host.Events(t.Context(), connect.NewRequest(&pb.EventsRequest{After: 5}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var got []*pb.EventsResponse
	for len(got) < 3 && stream.Receive() {
		got = append(got, stream.Msg())
	}
	if len(got) < 3 || got[0].GetKeepAlive() == nil || got[1].GetGap() == nil || got[2].GetStateChanged() == nil {
		t.Error(got, stream.Err())
	}
}
