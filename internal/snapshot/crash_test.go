package snapshot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// The variables that make the test's binary a process that freezes or compacts a build and is stopped at a failpoint.
const (
	helperRoot = "WRENN_TEST_SNAPSHOT_ROOT"
	helperTask = "WRENN_TEST_SNAPSHOT_TASK"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(helperRoot); root != "" {
		if err := crashHelper(root, os.Getenv(helperTask)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// errNotReached says that the failpoint did not stop the work.
var errNotReached = errors.New("the failpoint was not reached")

// crashHelper works on the store of a test until the failpoint stops it. It returns nil for the error of the failpoint, after
// the clean-up that a caller does.
func crashHelper(root, task string) error {
	s, err := New(root)
	if err != nil {
		return err
	}
	old, err := s.GetRef(ref)
	if err != nil {
		return err
	}
	switch task {
	case "pause":
		err = crashPause(s, old)
	case "compact":
		_, err = s.Compact(bg, old, ref)
	case "kill":
		return killHelper(s, old)
	case "collect":
		_, err = s.GC(bg)
	}
	switch {
	case errors.Is(err, failpoint.ErrInjected):
		return nil
	case err == nil:
		return errNotReached
	}
	return err
}

func crashPause(s *Store, old string) (err error) {
	g, err := s.Begin(bg, blockmap.NewBuildID(), old)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Abort(bg)) }()
	for name, size := range map[string]int64{manifest.Memory: pages * pageSize, manifest.VMState: 10, manifest.Disk: 10} {
		f, err := os.Create(g.Path(name))
		if err != nil {
			return err
		}
		_, err = f.WriteAt(fill(99)[:10], 0)
		if err := errors.Join(err, f.Truncate(size), f.Close()); err != nil {
			return err
		}
	}
	_, _, err = g.Commit(bg, infoOf(manifest.Diff), ref)
	return err
}

// tasksAt are the tasks that come by a failpoint.
func tasksAt(point string) []string {
	switch point {
	case pointGC.String():
		return []string{"collect"}
	case pointCompact.String():
		return []string{"compact"}
	}
	return []string{"pause", "compact"}
}

func TestFailureAtEveryStep(t *testing.T) {
	if len(Failpoints()) < 10 {
		t.Fatalf("failpoints: %v", Failpoints())
	}
	for _, point := range Failpoints() {
		for _, task := range tasksAt(point) {
			for _, action := range []string{"error", "kill"} {
				t.Run(strings.Join([]string{task, point, action}, " "), func(t *testing.T) {
					t.Parallel()
					failAt(t, point, task, action)
				})
			}
		}
	}
}

// failAt stops a task at a step: the generation before is whole and referred to, and nothing else is left after a GC.
func failAt(t *testing.T, point, task, action string) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2}
	base := commit(t, s, "", &mem, pagesOf(0, 1), ref)
	mem[1], mem[2] = 0, 7
	old := commit(t, s, base.ID, &mem, pagesOf(1, 2), ref)
	nobodys := commit(t, s, "", &mem, pagesOf(0))
	runHelper(t, s.root, point, task, action)
	if action == "error" && task != "collect" {
		checkCleanedUp(t, s, base.ID, old.ID, nobodys.ID)
	}
	if got, err := s.GetRef(ref); err != nil || got != old.ID {
		t.Fatalf("the reference points to %s, want %s: %v", got, old.ID, err)
	}
	checkMemory(t, s, old.ID, &mem)
	if _, err := s.GC(bg); err != nil {
		t.Fatal(err)
	}
	want := []string{base.ID, old.ID}
	slices.Sort(want)
	if got, err := s.List(); err != nil || !slices.Equal(got, want) {
		t.Errorf("builds %v, want %v: %v", got, want, err)
	}
	if left := rootNames(t, s); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	checkMemory(t, s, old.ID, &mem)
	if _, err := s.Compact(bg, old.ID, ref); err != nil { // and work goes on
		t.Error(err)
	}
}

// checkCleanedUp tells whether the caller's own clean-up, without a GC, left no more than the builds that there were and a
// reference beside its place.
func checkCleanedUp(t *testing.T, s *Store, builds ...string) {
	t.Helper()
	slices.Sort(builds)
	if got, err := s.List(); err != nil || !slices.Equal(got, builds) {
		t.Errorf("clean-up left builds %v, want %v: %v", got, builds, err)
	}
	for _, name := range rootNames(t, s) {
		if !strings.Contains(name, refsName) {
			t.Errorf("clean-up left %s", name)
		}
	}
}

func runHelper(t *testing.T, root, point, task, action string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperRoot+"="+root, helperTask+"="+task, failpoint.Env+"="+point+"="+action)
	out, err := cmd.CombinedOutput()
	if action == "error" && err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if action == "kill" && status.Signal() != syscall.SIGKILL {
		t.Fatalf("the process was not killed at the failpoint: %v: %s", err, out)
	}
}
