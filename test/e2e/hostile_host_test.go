//go:build hosttest

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// attacks are what a hostile guest does to its host, all at once.
var attacks = map[string]string{
	"output that somebody reads": "exec yes",
	"output that nobody reads":   "exec yes",
	"processes without end":      "f() { f | f & }; f; sleep 1000",
	"all of the disk":            "cat /dev/zero >/tmp/full; sleep 1000",
	"all of the memory":          "tail /dev/zero; sleep 1000",
}

// maxFlooded is how much more memory the agent may have under attack: the buffers of the streams, twice over.
const maxFlooded = 48 << 20

// TestAHostileNeighbour has one guest flood its output, fork without end, and fill its disk and its memory. Another on the same host
// answers all the while, the agent has no more memory than its buffers, and the hostile one's machine keeps to its limits and can be
// destroyed.
func TestAHostileNeighbour(t *testing.T) {
	nothingLeft(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	a := startWarmAgent(t, socket, warmSlots)
	good, bad := a.create(), a.create()
	a.exec(good, "true")
	before := a.metrics()["process_resident_memory_bytes"]

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var read atomic.Int64
	var streams sync.WaitGroup
	for what, script := range attacks {
		out := func(p []byte) (int, error) { read.Add(int64(len(p))); return len(p), nil }
		if strings.HasPrefix(what, "output that nobody") {
			out = func(p []byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
		}
		streams.Go(func() {
			_, _ = a.Exec(ctx, &pb.ExecRequest{Id: bad, Cmd: "sh", Args: []string{"-c", script}}, client.Streams{Stdout: writer(out), Stderr: writer(out)})
		})
	}
	for began := time.Now(); read.Load() == 0 && time.Since(began) < patience; {
		time.Sleep(100 * time.Millisecond)
	}
	if read.Load() == 0 {
		t.Fatal("the flood has not begun")
	}
	for i := range 8 {
		began := time.Now()
		if got := a.exec(good, "sh", "-c", fmt.Sprintf("echo %d >/dev/shm/%d; cat /dev/shm/%d", i, i, i)); got != fmt.Sprint(i) {
			t.Errorf("the neighbour answers %q", got)
		}
		t.Logf("the neighbour answers after %.1f s", time.Since(began).Seconds())
		machineKeepsToItsLimits(t, bad)
	}
	if after := a.metrics()["process_resident_memory_bytes"]; after > before+maxFlooded {
		t.Errorf("the agent has %d bytes of memory, before the attack %d", after, before)
	} else {
		t.Logf("the agent has %d KiB of memory, before the attack %d; %d bytes of output were read", after>>10, before>>10, read.Load())
	}
	for _, id := range []string{bad, good} {
		if _, err := a.Sandboxes.Destroy(t.Context(), rpc.NewRequest(&pb.DestroyRequest{Id: id})); err != nil {
			t.Error(err)
		}
	}
	cancel()
	streams.Wait()
	a.end()
	wrenn(t, "host", "sweep").want(t, 0)
}

// writer is a function as an io.Writer.
type writer func(p []byte) (int, error)

// Write calls it.
func (w writer) Write(p []byte) (int, error) { return w(p) }

// create starts a sandbox from the template.
func (a *agent) create() string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 2*patience)
	defer cancel()
	made, err := a.Sandboxes.Create(ctx, rpc.NewRequest(&pb.CreateRequest{Template: "base"}))
	if err != nil {
		a.t.Fatal(err)
	}
	return made.Msg.GetSandbox().GetId()
}

// machineKeepsToItsLimits looks that a machine has no more of the host than its cgroup allows, and that it has such limits.
func machineKeepsToItsLimits(t *testing.T, id string) {
	t.Helper()
	group := filepath.Join("/sys/fs/cgroup/wrenn", id)
	for what, limit := range map[string]string{"pids.current": "pids.max", "memory.current": "memory.max"} {
		now, most := number(t, filepath.Join(group, what)), number(t, filepath.Join(group, limit))
		if most <= 0 || now > most {
			t.Errorf("%s is %d of at most %d", what, now, most)
		}
	}
}

func number(t *testing.T, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return n
}
