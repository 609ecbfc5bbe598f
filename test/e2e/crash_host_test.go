//go:build hosttest

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/disk/devmapper"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/network/linux"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm/firecracker"
)

// allFailpoints are the steps of a run that boots at which a test can stop it.
func allFailpoints() []string {
	return slices.Concat(sandbox.Failpoints(), linux.Failpoints(), devmapper.Failpoints(), firecracker.Failpoints())
}

// TestKillAtEveryStep ends wrenn with SIGKILL at each step of a run; a sweep then leaves nothing.
func TestKillAtEveryStep(t *testing.T) {
	points := allFailpoints()
	if len(points) < 20 {
		t.Fatalf("%d failpoints: the test does not see them", len(points))
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			nothingLeft(t)
			r := finish(t, command(t, []string{failpoint.Env + "=" + point + "=kill"}, "run", "--cold", "--disk", "3G", "--", "true"))
			if r.code != -1 {
				t.Fatalf("the run was not killed at %s: exit code %d\n%s", point, r.code, r.errOut)
			}
			wrenn(t, "host", "sweep").want(t, 0)
		})
	}
}

// TestKillAtEveryStepOfAWarmStart does the same to a run that begins from the template's warm build.
func TestKillAtEveryStepOfAWarmStart(t *testing.T) {
	wrenn(t, "run", "--", "true").want(t, 0) // makes the build
	points := slices.Concat(sandbox.Failpoints(), firecracker.LoadFailpoints(), process.Failpoints(), devmapper.RestoreFailpoints())
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			nothingLeft(t)
			dies(t, point, "run", "--", "true")
			wrenn(t, "host", "sweep").want(t, 0)
		})
	}
}

// TestKillWhileATemplateIsMadeWarm does it at the steps of the freeze of a warm build: the next run makes one.
func TestKillWhileATemplateIsMadeWarm(t *testing.T) {
	for _, point := range append(sandbox.FreezeFailpoints(), "snapshot.staged", "snapshot.placed", "snapshot.ref") {
		t.Run(point, func(t *testing.T) {
			for _, name := range refsIn(t, "template") {
				if err := os.Remove(filepath.Join(stateDir(), "builds", "refs", "template", name)); err != nil {
					t.Fatal(err)
				}
			}
			wrenn(t, "host", "sweep").want(t, 0)
			nothingLeft(t)
			dies(t, point, "run", "--", "true")
			wrenn(t, "host", "sweep").want(t, 0)
			noHalves(t)
		})
	}
	nothingLeft(t)
	wrenn(t, "run", "--", "true").want(t, 0)
}

// TestFailureAtEveryStep makes each step fail instead: the run itself leaves nothing, and says what failed.
func TestFailureAtEveryStep(t *testing.T) {
	for _, point := range allFailpoints() {
		if strings.HasPrefix(point, "sandbox.stopping") || strings.HasSuffix(point, "-gone") {
			continue // a failing removal is for the sweep: see above
		}
		t.Run(point, func(t *testing.T) {
			nothingLeft(t)
			r := finish(t, command(t, []string{failpoint.Env + "=" + point + "=error"}, "run", "--cold", "--disk", "3G", "--", "true")).want(t, 125)
			if !strings.Contains(r.errOut, point) {
				t.Errorf("the error does not name %s: %q", point, r.errOut)
			}
		})
	}
}

// TestSweepLeavesTheLivingAlone sweeps while another run is at work.
func TestSweepLeavesTheLivingAlone(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "-i", "--", "sh", "-c", "echo up; cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	swept := false
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if !swept {
			swept = true
			if r := wrenn(t, "host", "sweep", "--all"); r.code != 0 || !strings.Contains(r.out, "in use") {
				t.Errorf("sweep: %d %q %q", r.code, r.out, r.errOut)
			}
			in.Close()
		}
		return len(p), nil
	})
	finish(t, cmd).want(t, 0)
	if !swept {
		t.Error("no output came")
	}
}
