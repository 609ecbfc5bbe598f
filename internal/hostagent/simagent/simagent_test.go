package simagent_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/hostagenttest"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/hostagent/simagent"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve has a host answer on a socket until the test ends.
func serve(t *testing.T, h *simagent.Host) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := rpc.Unix(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = rpc.Serve(ctx, h.Handler(), 10*time.Millisecond, l) })
	c := client.Unix(socket)
	t.Cleanup(func() {
		c.Close()
		stop()
		running.Wait()
		h.Close()
	})
	return c
}

func TestConformance(t *testing.T) {
	hostagenttest.Run(t, func(t *testing.T) hostagenttest.Target {
		h := simagent.New(simagent.Config{Limits: quota.Amount{Sandboxes: hostagenttest.Room}})
		return hostagenttest.Target{Client: serve(t, h), Template: "base"}
	})
}

// TestASandboxThatFails tells of its end.
func TestASandboxThatFails(t *testing.T) {
	h := simagent.New(simagent.Config{})
	c := serve(t, h)
	made, err := c.Sandboxes.Create(t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base"}))
	if err != nil {
		t.Fatal(err)
	}
	id := made.Msg.GetSandbox().GetId()
	if !h.Fail(id, "its machine died") || h.Fail(id, "again") || h.Fail("cl-0123456789abcdefghij", "nobody") {
		t.Error("it fails once")
	}
	got, err := c.Sandboxes.Get(t.Context(), connect.NewRequest(&pb.GetRequest{Id: id}))
	if err != nil || got.Msg.GetSandbox().GetState() != pb.State_STATE_FAILED || got.Msg.GetSandbox().GetReason() != "its machine died" {
		t.Error(got, err)
	}
}

func TestLatency(t *testing.T) {
	took := map[string]bool{}
	c := serve(t, simagent.New(simagent.Config{Latency: func(operation string) time.Duration {
		took[operation] = true
		return time.Millisecond
	}}))
	made, err := c.Sandboxes.Create(t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sandboxes.Destroy(t.Context(), connect.NewRequest(&pb.DestroyRequest{Id: made.Msg.GetSandbox().GetId()})); err != nil {
		t.Fatal(err)
	}
	if !took["create"] || !took["destroy"] {
		t.Error(took)
	}
}

// TestSandboxesAreCheap: a hundred hosts with a hundred sandboxes each take less than 4 KiB of memory a sandbox.
func TestSandboxesAreCheap(t *testing.T) {
	const hosts, each, most = 100, 100, 4 << 10
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var all []*simagent.Host
	for range hosts {
		h := simagent.New(simagent.Config{})
		for i := range each {
			if err := h.Add(fmt.Sprintf("cl-%020d", i)); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, h)
	}
	per := (heap() - before) / (hosts * each)
	t.Logf("%d bytes a sandbox", per)
	if per > most {
		t.Errorf("a sandbox takes %d bytes, over %d", per, most)
	}
	runtime.KeepAlive(all)
}
