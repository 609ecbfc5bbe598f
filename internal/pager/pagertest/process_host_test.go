//go:build hosttest

package pagertest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/pager/pagertest"
)

// nobody is whom the pagers of these tests become.
var nobody = pager.Identity{UID: 1910000001, GID: 1910000002}

// rollup reads one line of a process's smaps_rollup, in bytes.
func rollup(t *testing.T, pid int, name string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in %s", name, data)
	return 0
}

// TestMemoryStaysSmall has one pager do all that it can do, and then flooded with removals.
func TestMemoryStaysSmall(t *testing.T) {
	s := spec(t, 16)
	m, err := pagertest.Random(t.TempDir(), 64<<10, 3, 200, 7) // 256 MiB in some 700 pieces: what the layout takes is not the pager's
	if err != nil {
		t.Fatal(err)
	}
	s.Memory = m
	dir := filepath.Dir(s.Socket)
	s.Record, s.Prefetch, s.DropTo = filepath.Join(dir, "record"), filepath.Join(dir, "prefetch"), &nobody
	chown(t, dir)
	writeSet(t, s)
	r := start(t, s)
	await(t, r.client(), func(s pager.Stats) bool { return s.PrefetchDone })
	r.do(pagertest.Job{Op: pagertest.OpWalk, From: 0, To: 128 << 20, Threads: 4})
	if err := r.client().Stream(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, r.client(), func(s pager.Stats) bool { return s.Streamed+s.Copied+s.Zeroed > 40<<10 })
	atRest(t, r.server.PID())
	before := rollup(t, r.server.PID(), "Private_Dirty")
	r.do(pagertest.Job{Op: pagertest.OpRemove, From: 0, To: 128 << 20, Rounds: 20})
	for from := uint64(0); from < 64<<20; from += 3 * page {
		r.do(pagertest.Job{Op: pagertest.OpRemove, From: from, To: from + page})
	}
	after := rollup(t, r.server.PID(), "Private_Dirty")
	t.Logf("Private_Dirty %d KiB, after a flood of removals %d KiB; Rss %d KiB", before>>10, after>>10, rollup(t, r.server.PID(), "Rss")>>10)
	if after > max(before+256<<10, memoryLimit) {
		t.Errorf("private memory %d bytes, after a flood of removals %d", before, after)
	}
	t.Log(r.end())
}

// atRest waits until a process's private memory is within the limit.
func atRest(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); rollup(t, pid, "Private_Dirty") > memoryLimit; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a pager at rest has %d bytes of private memory; the limit is %d", rollup(t, pid, "Private_Dirty"), memoryLimit)
		}
	}
}

// chown gives a test's folder to nobody.
func chown(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chown(dir, nobody.UID, nobody.GID); err != nil {
		t.Fatal(err)
	}
}

// writeSet writes a working set of every third page.
func writeSet(t *testing.T, s pagertest.Spec) {
	t.Helper()
	set := pager.WorkingSet{Memory: s.Layout.Size()}
	for p := uint32(0); uint64(p) < s.Layout.Size()/page; p += 3 {
		set.Pages = append(set.Pages, p)
	}
	var b bytes.Buffer
	if err := set.Encode(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Prefetch, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// status reads the lines of a thread's status.
func status(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := map[string]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		name, value, _ := strings.Cut(in.Text(), ":")
		lines[name] = strings.Join(strings.Fields(value), " ")
	}
	return lines
}

func TestNoPrivilegeIsLeft(t *testing.T) {
	s := spec(t, 256)
	s.Record, s.DropTo = filepath.Join(filepath.Dir(s.Socket), "record"), &nobody
	chown(t, filepath.Dir(s.Socket))
	r := start(t, s)
	r.read(r.all(), 2, 0, 0)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.server.PID()))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads, %v", len(tasks), err)
	}
	uid, gid := strconv.Itoa(nobody.UID), strconv.Itoa(nobody.GID)
	const none = "0000000000000000"
	for _, task := range tasks {
		got := status(t, task)
		for name, want := range map[string]string{
			"Uid": strings.Join([]string{uid, uid, uid, uid}, " "), "Gid": strings.Join([]string{gid, gid, gid, gid}, " "), "Groups": "",
			"NoNewPrivs": "1", "Seccomp": "2", "CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none,
		} {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", task, name, got[name], want)
			}
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.server.PID()))
	if err != nil || !regexp.MustCompile(`Max open files\s+67\s+67\s`).Match(limits) {
		t.Errorf("%v, %s", err, limits)
	}
	if stats := r.end(); stats.Recorded == 0 || stats.Recorded > 256 {
		t.Errorf("%v", stats)
	}
	if _, err := os.Stat(s.Record); err != nil {
		t.Errorf("the record was not written: %v", err)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	s := spec(t, 16)
	s.Record, s.DropTo = filepath.Join(t.TempDir(), "record"), &nobody
	_, err := pagertest.StartServer(s)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("%v", err)
	}
}

// TestStrangersAreSentAway has another user's process and one with the wrong pid connect: the pager waits for the right one.
func TestStrangersAreSentAway(t *testing.T) {
	s := spec(t, 256)
	s.PeerPID = 1 // no victim is that
	s.ConnectTimeout = 300 * 1000 * 1000
	server, err := pagertest.StartServer(s)
	if err != nil {
		t.Fatal(err)
	}
	defer server.End()
	victim, err := pagertest.StartVictim()
	if err != nil {
		t.Fatal(err)
	}
	defer victim.End()
	regions := []pagertest.RegionSpec{{Offset: 0, Size: s.Layout.Size()}}
	if _, err := victim.Do(pagertest.Job{Op: pagertest.OpHello, Socket: s.Socket, Regions: regions}); err != nil {
		t.Logf("the stranger noticed: %v", err)
	}
	if _, err := server.Wait(); err == nil || !strings.Contains(err.Error(), "unavailable") {
		t.Errorf("%v", err)
	}
}
