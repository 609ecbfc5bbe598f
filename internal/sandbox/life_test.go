package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

var errBroken = errors.New("broken")

// state is what a sandbox's record says.
func (w *world) state(id string) State {
	w.t.Helper()
	r, err := readRecord(w.path(id))
	if err != nil {
		w.t.Fatal(err)
	}
	return r.State
}

// refs are the references to builds, with their kinds.
func (w *world) refs() []string {
	w.t.Helper()
	refs, err := w.builds.ListRefs()
	if err != nil {
		w.t.Fatal(err)
	}
	var list []string
	for r := range refs {
		list = append(list, r.String())
	}
	slices.Sort(list)
	return list
}

// noBuilds fails the test if a build is there after all references but those of the kind template are gone.
func (w *world) onlyBuilds(n int) {
	w.t.Helper()
	if err := w.collect(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	if list, err := w.builds.List(); err != nil || len(list) != n {
		w.t.Errorf("builds %v, %v; want %d; references %v", list, err, n, w.refs())
	}
	entries, err := os.ReadDir(w.buildsDir())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			w.t.Errorf("%s is left", e.Name())
		}
	}
}

func names(steps []vmm.Step) []string {
	var list []string
	for _, s := range steps {
		list = append(list, s.Name)
	}
	return list
}

func TestTheFirstOfATemplateMakesItWarm(t *testing.T) {
	w := newWorld(t)
	var told []string
	first, err := w.Create(t.Context(), Spec{Template: "base"}, func(s vmm.Step) { told = append(told, s.Name) })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"warm.guest", "warm.digest", "pager", "wake"} {
		if !slices.Contains(told, step) {
			t.Errorf("nobody was told of %s: %v", step, told)
		}
	}
	cfg, _, _ := w.host.Config(first.ID)
	if cfg.From == nil || cfg.Kernel != "" || !cfg.TrackDirty {
		t.Errorf("it booted: %+v", cfg)
	}
	ready := len(w.guest.calls)
	second := w.create(Spec{})
	if slices.Contains(w.guest.calls[ready:], "ready") {
		t.Error("the second one booted")
	}
	if first.Token == second.Token || first.record.Start == second.record.Start || first.ID == second.ID {
		t.Error("two starts are the same")
	}
	for _, sb := range []*Sandbox{first, second} {
		if err := sb.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	w.empty()
	w.onlyBuilds(1)
}

func TestOtherSizesBoot(t *testing.T) {
	w := newWorld(t)
	for _, spec := range []Spec{{MemoryMiB: 512}, {VCPUs: 2}, {DiskBytes: 1 << 20}, {Console: true}, {Cold: true}} {
		sb := w.create(spec)
		if cfg, _, _ := w.host.Config(sb.ID); cfg.From != nil {
			t.Errorf("%+v did not boot", spec)
		}
		if err := sb.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	w.onlyBuilds(0)
}

func TestAWarmBuildOfAnotherHostIsMadeAnew(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	old := sb.Build()
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	w.print.KernelRelease = "6.2"
	sb = w.create(Spec{})
	if sb.Build() == old {
		t.Error("the build of another kernel was started")
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.onlyBuilds(1)
}

func TestPauseAndResume(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	id, token := sb.ID, sb.Token
	for i := range 5 {
		steps, err := sb.Pause(t.Context(), "idle")
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []string{"quiesce", "pause", "snapshot", "disk", "digest", "free"} {
			if !slices.Contains(names(steps), step) {
				t.Errorf("no time of %s in %v", step, names(steps))
			}
		}
		if w.state(id) != Paused {
			t.Fatalf("it is %s", w.state(id))
		}
		for name, list := range map[string]func(context.Context) ([]string, error){
			"machine": w.vmm.List, "disk": w.disk.List, "network": w.network.List, "pager": w.pagers.List,
		} {
			if ids, err := list(t.Context()); err != nil || len(ids) != 0 {
				t.Errorf("%s is left of a paused sandbox: %v, %v", name, ids, err)
			}
		}
		if sb, err = w.Resume(t.Context(), id, nil); err != nil {
			t.Fatalf("resume %d: %v", i, err)
		}
		if sb.ID != id || sb.Token == token || w.state(id) != Running {
			t.Errorf("%s with %s, %s", sb.ID, sb.Token, w.state(id))
		}
		w.onlyBuilds(2) // the template's and the last generation: the pages are the fake's first one, each time
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
	w.onlyBuilds(1)
}

func TestAPausedSandboxIsNotWokenToBeDeleted(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := sb.Pause(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	w.vmm.OnStart = func(context.Context, vmm.Config) error { t.Error("it was started"); return nil }
	if err := w.Destroy(t.Context(), sb.ID, "unwanted"); err != nil {
		t.Error(err)
	}
	w.empty()
	w.onlyBuilds(1)
}

func TestWhatIsNotThereAnyMore(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := w.Resume(t.Context(), sb.ID, nil); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("resume of a running one: %v", err)
	}
	if _, err := sb.Pause(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Pause(t.Context(), "again"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a second pause: %v", err)
	}
	if _, err := sb.Snapshot(t.Context(), "x"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a snapshot of a paused one: %v", err)
	}
	if err := sb.Destroy(t.Context(), "x"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("destroy by who paused it: %v", err)
	}
	again, err := w.Resume(t.Context(), sb.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.host.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM, Detail: "out of memory"})
	if _, err := again.Pause(t.Context(), "idle"); !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("pause of a dead one: %v", err)
	}
}

func TestTheWorkingSetIsKeptForTheNextStart(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if w.pagers.last.Prefetch != "" {
		t.Errorf("the first start prefetches %s", w.pagers.last.Prefetch)
	}
	build := sb.Build()
	if _, err := sb.Pause(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	next := w.create(Spec{})
	if w.pagers.last.Prefetch != w.workingSet(build) {
		t.Errorf("the second start prefetches %q", w.pagers.last.Prefetch)
	}
	if err := next.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	if _, err := w.Resume(t.Context(), sb.ID, nil); err != nil {
		t.Fatal(err)
	}
	if set, err := readWorkingSet(w.workingSet(build)); err != nil || fmt.Sprint(set.Pages) != "[1 2 3]" {
		t.Errorf("the set of two starts is %v, %v", set.Pages, err)
	}
	if set := filepath.Base(w.pagers.last.Prefetch); set == "." || set == build {
		t.Errorf("the resume prefetches %q, and not what the new build inherited", set)
	}
}

// TestManyGenerationsAreCompacted pauses and resumes until the memory is in too many generations for a quick start.
func TestManyGenerationsAreCompacted(t *testing.T) {
	w := newWorld(t)
	page := 0
	w.vmm.Page = func() int64 { page++; return int64(page) } // another one each time
	sb := w.create(Spec{})
	id := sb.ID
	compacted := false
	for range 60 {
		if _, err := sb.Pause(t.Context(), "idle"); err != nil {
			t.Fatal(err)
		}
		before, err := w.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		after, err := w.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: id})
		if err != nil {
			t.Fatal(err)
		}
		compacted = compacted || before != after
		if sb, err = w.Resume(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		if compacted {
			break
		}
	}
	if !compacted {
		t.Error("no build was compacted")
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.onlyBuilds(1)
}
