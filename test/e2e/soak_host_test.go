//go:build hosttest

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// soakEnv says how long TestSoak goes on; soakTime is how long it does without.
const (
	soakEnv  = "WRENN_SOAK_TIME"
	soakTime = time.Second
)

// warmUp is how many rounds pass before figures are compared: the first makes the warm build, fills caches and opens connections.
const warmUp = 1

// warmSlots is how many network slots the agent keeps ready.
const warmSlots = 2

// figures are what is counted between rounds, when no sandbox is there.
type figures map[string]int64

// flat are the figures that must not grow at all, but for the slack: some come and go by themselves.
var flat = map[string]int64{
	"loop devices": 0, "dm devices": 0, "namespaces": 0, "mounts": 0, "cgroups": 0, "links": 0, "machines": 0, "builds": 0,
	"files of state": 0, "agent fds": 8, "agent threads": 8, "agent goroutines": 16,
}

// maxGrowth is how much more memory the agent may have at the end than after the warm-up, whatever the time: the Go runtime gives memory
// back late, and a leak of 1 KiB an operation is seen in an hour.
const maxGrowth = 16 << 20

// TestSoak goes through the whole life of sandboxes in rounds, through the agent. Between rounds nothing is there, and neither the agent
// nor the host has more of anything than after the first ones.
func TestSoak(t *testing.T) {
	nothingLeft(t)
	limit := soakTime
	if s := os.Getenv(soakEnv); s != "" {
		var err error
		if limit, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", soakEnv, err)
		}
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	a := startWarmAgent(t, socket, warmSlots)
	var first figures
	began := time.Now()
	for n := 1; ; n++ {
		at := time.Now()
		a.round(n)
		now := a.figures()
		t.Logf("round %d, %.0f s: %s", n, time.Since(at).Seconds(), now)
		switch {
		case n < warmUp:
		case n == warmUp:
			first, began = now, time.Now()
		default:
			now.compare(t, first)
		}
		if t.Failed() {
			_ = a.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines are then in its log
			_ = a.cmd.Wait()
			t.FailNow()
		}
		if n > warmUp && time.Since(began) > limit {
			break
		}
	}
	a.end()
	wrenn(t, "host", "sweep").want(t, 0)
}

// round has a sandbox created, used, paused, resumed, forked and frozen under a name, another started from that, and all destroyed.
func (a *agent) round(n int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 3*patience)
	defer cancel()
	must := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	made, err := a.Sandboxes.Create(ctx, rpc.NewRequest(&pb.CreateRequest{Template: "base", IdempotencyKey: fmt.Sprintf("soak %d", n)}))
	must(err)
	id := made.Msg.GetSandbox().GetId()
	text := fmt.Sprintf("round %d", n)
	a.exec(id, "sh", "-c", fmt.Sprintf("echo %s >/dev/shm/text; head -c 1M /dev/urandom >/tmp/noise", text))
	_, err = a.Sandboxes.Pause(ctx, rpc.NewRequest(&pb.PauseRequest{Id: id}))
	must(err)
	_, err = a.Sandboxes.Resume(ctx, rpc.NewRequest(&pb.ResumeRequest{Id: id}))
	must(err)
	forked, err := a.Sandboxes.Fork(ctx, rpc.NewRequest(&pb.ForkRequest{Id: id, Count: 1}))
	must(err)
	ids := []string{id, forked.Msg.GetClones()[0].GetSandbox().GetId()}
	_, err = a.Snapshots.CreateSnapshot(ctx, rpc.NewRequest(&pb.CreateSnapshotRequest{Id: id, Name: "soak"}))
	must(err)
	made, err = a.Sandboxes.Create(ctx, rpc.NewRequest(&pb.CreateRequest{Snapshot: "soak"}))
	must(err)
	ids = append(ids, made.Msg.GetSandbox().GetId())
	for _, id := range ids {
		if got := a.exec(id, "cat", "/dev/shm/text"); got != text {
			a.t.Fatalf("round %d: %s has %q", n, id, got)
		}
		_, err := a.Sandboxes.Destroy(ctx, rpc.NewRequest(&pb.DestroyRequest{Id: id}))
		must(err)
	}
	_, err = a.Snapshots.DeleteSnapshot(ctx, rpc.NewRequest(&pb.DeleteSnapshotRequest{Name: "soak"}))
	must(err)
}

// figures counts what the agent and the host have.
func (a *agent) figures() figures {
	a.t.Helper()
	all := a.metrics()
	for began := time.Now(); all["wrenn_network_slots_ready"] != warmSlots; all = a.metrics() {
		if time.Since(began) > patience {
			a.t.Fatalf("%d network slots are ready", all["wrenn_network_slots_ready"])
		}
		time.Sleep(100 * time.Millisecond)
	}
	f := figures{"agent goroutines": all["go_goroutines"], "agent fds": all["process_open_fds"], "agent threads": all["go_threads"],
		"agent memory": all["process_resident_memory_bytes"], "agent heap": all["go_memstats_heap_inuse_bytes"]}
	for what, pattern := range map[string]string{
		"loop devices": "/sys/block/loop*/loop/backing_file", "dm devices": "/sys/block/dm-*", "namespaces": "/run/netns/*",
		"cgroups": "/sys/fs/cgroup/wrenn*/*/cgroup.procs", "links": "/sys/class/net/*", "builds": filepath.Join(stateDir(), "builds/*"),
	} {
		list, err := filepath.Glob(pattern)
		if err != nil {
			a.t.Fatal(err)
		}
		f[what] = int64(len(list))
	}
	f["mounts"] = int64(countLines(a.t, "/proc/self/mountinfo"))
	f["machines"] = processesNamed(a.t, "firecracker")
	f["files of state"] = filesBelow(a.t, filepath.Join(stateDir(), "sandboxes"), filepath.Join(stateDir(), "slots"), filepath.Join(stateDir(), "jail"))
	return f
}

// compare fails the test for what there is more of than there was.
func (f figures) compare(t *testing.T, first figures) {
	t.Helper()
	for what, slack := range flat {
		if f[what] > first[what]+slack {
			t.Errorf("%s: %d, after the warm-up %d", what, f[what], first[what])
		}
	}
	if f["agent memory"] > first["agent memory"]+maxGrowth {
		t.Errorf("the agent's memory: %d, after the warm-up %d", f["agent memory"], first["agent memory"])
	}
}

// String is the figures on one line.
func (f figures) String() string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, fmt.Sprintf("%s %d", what, f[what]))
	}
	return strings.Join(parts, ", ")
}

// metrics reads the agent's metrics that have no labels, as Prometheus does.
func (a *agent) metrics() map[string]int64 {
	a.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", a.socket)
		}}}
	resp, err := client.Get("http://agent/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	all := map[string]int64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] = int64(n)
		}
	}
	if err := lines.Err(); err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	return all
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// processesNamed counts them on the host.
func processesNamed(t *testing.T, name string) (n int64) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if comm, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(comm)) == name {
			n++
		}
	}
	return n
}

// filesBelow counts the files in folders, those that are not there included as none.
func filesBelow(t *testing.T, folders ...string) (n int64) {
	t.Helper()
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return n
}
