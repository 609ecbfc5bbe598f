//go:build hosttest

package e2e

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/disk/devmapper"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm/firecracker"
)

// freezePoints are the steps of a freeze, until it is whole.
func freezePoints() []string {
	points := slices.Concat(sandbox.FreezeFailpoints(), firecracker.SnapshotFailpoints(), devmapper.FreezeFailpoints(), snapshot.Failpoints())
	return slices.DeleteFunc(points, func(p string) bool { return p == "snapshot.compact" || p == "snapshot.gc" }) // a freeze does neither
}

// loadPoints are the steps of a start from a frozen machine that a boot does not have, and those of the sandbox's own.
func loadPoints() []string {
	return slices.Concat([]string{"sandbox.groundwork", "sandbox.boot", "sandbox.awake"}, firecracker.LoadFailpoints(), process.Failpoints(),
		devmapper.RestoreFailpoints())
}

// stopped runs the binary with a failpoint, and returns how it ended.
func stopped(t *testing.T, point, action string, args ...string) result {
	t.Helper()
	return finish(t, command(t, []string{failpoint.Env + "=" + point + "=" + action}, args...))
}

// failsAt has the binary fail at a step and say so.
func failsAt(t *testing.T, point string, args ...string) {
	t.Helper()
	if r := stopped(t, point, "error", args...).want(t, 125); !strings.Contains(r.errOut, point) {
		t.Errorf("the error does not name %s: %q", point, r.errOut)
	}
}

// dies has the binary killed at a step.
func dies(t *testing.T, point string, args ...string) {
	t.Helper()
	if r := stopped(t, point, "kill", args...); r.code != -1 {
		t.Fatalf("%v was not killed at %s: exit code %d\n%s", args, point, r.code, r.errOut)
	}
}

// whole fails the test unless what the box holds is right: what it held, and at least the count.
func (b *box) whole(t *testing.T, kept string, count *int) {
	t.Helper()
	got, err := b.tryAsk("kept", "count", "file")
	if err != nil {
		t.Fatalf("%s does not answer: %v", b.id, err)
	}
	n, err := strconv.Atoi(got[1])
	if err != nil || n < *count || got[0] != kept || got[2] != "what a file without a name says" {
		t.Errorf("it holds %v, want %s and %d or more", got, kept, *count)
	}
	*count = n
}

// noHalves fails the test if a build is there that is not whole.
func noHalves(t *testing.T) {
	t.Helper()
	for _, name := range namesIn(t, filepath.Join(stateDir(), "builds")) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s is left", name)
		}
	}
}

// TestAPauseThatFailsOrDies has 'wrenn pause' fail at each step of a freeze, and killed there: the sandbox runs on with all that it
// holds, or is paused and can be resumed. Then a pause works.
func TestAPauseThatFailsOrDies(t *testing.T) {
	nothingLeft(t)
	b := keptHolder(t, "--cold", "--memory", "192M") // a freeze after one that failed compares all of the memory
	points := freezePoints()
	if len(points) < 15 {
		t.Fatalf("%d failpoints: the test does not see them", len(points))
	}
	count := 0
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			b := b.on(t)
			kept := b.ask("rewrite")[0] // so that each freeze has something to write
			failsAt(t, point, "pause", b.id)
			if s := b.state(); s != sandbox.Running {
				t.Errorf("after a failure it is %s", s)
			}
			b.whole(t, kept, &count)
			noHalves(t)
			dies(t, point, "pause", b.id)
			sweeps(t, b, sandbox.Running, sandbox.Paused)
			b.whole(t, kept, &count)
		})
	}
	for _, point := range []string{"sandbox.machine-gone", "sandbox.pager-gone", "sandbox.disk-gone", "sandbox.network-gone"} {
		t.Run(point, func(t *testing.T) {
			b := b.on(t)
			kept := b.ask("rewrite")[0]
			dies(t, point, "pause", b.id)
			sweeps(t, b, sandbox.Paused)
			b.whole(t, kept, &count)
		})
	}
	kept := b.ask("rewrite")[0]
	wrenn(t, "pause", b.id).want(t, 0)
	wrenn(t, "resume", b.id).want(t, 0)
	b.whole(t, kept, &count)
}

// sweeps has the binary sweep, after which the box is in one of the states, and lets it go on if it is paused.
func sweeps(t *testing.T, b *box, states ...sandbox.State) {
	t.Helper()
	r := wrenn(t, "host", "sweep").want(t, 0)
	noHalves(t)
	s := b.state()
	if !slices.Contains(states, s) {
		t.Fatalf("after a sweep it is %s, want %v: %s", s, states, r.out)
	}
	if s == sandbox.Paused {
		wrenn(t, "resume", b.id).want(t, 0)
	}
}

// TestASnapshotThatDies has 'wrenn snapshot create' and 'wrenn fork' killed when the machine stands still: it goes on.
func TestASnapshotThatDies(t *testing.T) {
	nothingLeft(t)
	b := keptHolder(t, "--cold", "--memory", "192M")
	count := 0
	for _, point := range []string{"sandbox.still", "snapshot.placed", "sandbox.committed"} {
		t.Run(point, func(t *testing.T) {
			b := b.on(t)
			kept := b.ask("rewrite")[0]
			dies(t, point, "snapshot", "create", b.id, "dies")
			wrenn(t, "exec", b.id, "--", "true").want(t, 0) // without a sweep
			b.whole(t, kept, &count)
			dies(t, point, "fork", b.id)
			sweeps(t, b, sandbox.Running)
			b.whole(t, kept, &count)
			if refs := refsIn(t, "fork"); len(refs) > 0 {
				t.Errorf("references of forks are left: %v", refs)
			}
			dies(t, "sandbox.quiesced", "pause", b.id) // the last freeze is not taken for this one's
			sweeps(t, b, sandbox.Running)
			b.whole(t, kept, &count)
		})
	}
	// Either there is a snapshot or there is none; when there is, it is whole.
	for _, name := range refsIn(t, "snapshot") {
		r := wrenn(t, "run", "--snapshot", name, "--", "true").want(t, 0)
		t.Log(r.errOut)
		wrenn(t, "snapshot", "rm", name).want(t, 0)
	}
}

// TestAResumeThatFailsOrDies has 'wrenn resume' fail at each step of a start, and killed there: the sandbox stays paused. Then a resume
// works.
func TestAResumeThatFailsOrDies(t *testing.T) {
	nothingLeft(t)
	b := keptHolder(t)
	count := 0
	kept := b.ask("kept")[0]
	wrenn(t, "pause", b.id).want(t, 0)
	for _, point := range loadPoints() {
		t.Run(point, func(t *testing.T) {
			b := b.on(t)
			failsAt(t, point, "resume", b.id)
			if s := b.state(); s != sandbox.Paused {
				t.Fatalf("after a failure it is %s", s)
			}
			dies(t, point, "resume", b.id)
			wrenn(t, "host", "sweep").want(t, 0)
			if s := b.state(); s != sandbox.Paused {
				t.Fatalf("after a sweep it is %s", s)
			}
		})
	}
	wrenn(t, "resume", b.id).want(t, 0)
	b.whole(t, kept, &count)
}
