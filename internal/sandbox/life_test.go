package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// TestAFailedPauseRunsOn fails each part of a pause: the sandbox runs, nothing is left, and the next pause works.
func TestAFailedPauseRunsOn(t *testing.T) {
	for name, set := range map[string]func(w *world) (mend func()){
		"quiesce": func(w *world) func() {
			w.guest.quiesce = func(context.Context) error { return errBroken }
			return func() { w.guest.quiesce = nil }
		},
		"pause": func(w *world) func() {
			w.vmm.OnPause = func(context.Context, string) error { return errBroken }
			return func() { w.vmm.OnPause = nil }
		},
		"snapshot": func(w *world) func() {
			w.vmm.OnSnapshot = func(context.Context, string, vmm.Snapshot) error { return errBroken }
			return func() { w.vmm.OnSnapshot = nil }
		},
		"disk": func(w *world) func() {
			w.disk.Fail = onlyOn("Freeze", errBroken)
			return func() { w.disk.Fail = nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{})
			before := sb.Build()
			mend := set(w)
			if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errBroken) {
				t.Errorf("%v", err)
			}
			if w.state(sb.ID) != Running || w.guest.refuses || sb.Build() != before {
				t.Errorf("it is %s, quiet %v, build %s", w.state(sb.ID), w.guest.refuses, sb.Build())
			}
			w.onlyBuilds(1)
			mend()
			var diff bool
			w.vmm.OnSnapshot = func(_ context.Context, _ string, s vmm.Snapshot) error { diff = s.Diff; return nil }
			if _, err := sb.Pause(t.Context(), "idle"); err != nil {
				t.Fatal(err)
			}
			if lost := name == "snapshot" || name == "disk"; diff == lost {
				t.Errorf("the next freeze took what changed: %v; the account of it was emptied: %v", diff, lost)
			}
			again, err := w.Resume(t.Context(), sb.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
			w.onlyBuilds(1)
		})
	}
}

// TestAFailedResumeStaysPaused fails each part of a resume.
func TestAFailedResumeStaysPaused(t *testing.T) {
	for name, set := range map[string]func(w *world){
		"network": func(w *world) { w.network.Fail = onlyOn("acquire", errBroken) },
		"pager":   func(w *world) { w.pagers.fail = onlyOn("Start", errBroken) },
		"disk":    func(w *world) { w.disk.Fail = onlyOn("Create", errBroken) },
		"machine": func(w *world) { w.vmm.OnStart = func(context.Context, vmm.Config) error { return errBroken } },
		"wake":    func(w *world) { w.guest.awake = func(context.Context) error { return errBroken } },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{})
			if _, err := sb.Pause(t.Context(), "idle"); err != nil {
				t.Fatal(err)
			}
			set(w)
			if _, err := w.Resume(t.Context(), sb.ID, nil); !errors.Is(err, errBroken) {
				t.Errorf("%v", err)
			}
			if w.state(sb.ID) != Paused {
				t.Fatalf("it is %s", w.state(sb.ID))
			}
			w.network.Fail, w.pagers.fail, w.disk.Fail, w.vmm.OnStart, w.guest.awake = nil, nil, nil, nil, nil
			again, err := w.Resume(t.Context(), sb.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
			w.empty()
		})
	}
}

func TestACallerThatLeavesAPauseFinishesIt(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	w.vmm.OnSnapshot = func(context.Context, string, vmm.Snapshot) error { cancel(); return nil }
	if _, err := sb.Pause(ctx, "idle"); err != nil || w.state(sb.ID) != Paused {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
}

func TestNamedSnapshots(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if w.state(sb.ID) != Running || w.guest.refuses {
		t.Errorf("the source is %s", w.state(sb.ID))
	}
	if _, err := sb.Snapshot(t.Context(), "one"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the name again: %v", err)
	}
	for _, name := range []string{"", "A", "../x", "-x", strings.Repeat("x", 65)} {
		if _, err := sb.Snapshot(t.Context(), name); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	clone := w.create(Spec{Snapshot: "one"})
	if err := w.DeleteSnapshot(t.Context(), "one"); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), clone.ID) {
		t.Errorf("deleted in use: %v", err)
	}
	if err := clone.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	if list, err := w.Snapshots(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if err := w.DeleteSnapshot(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := w.DeleteSnapshot(t.Context(), "one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	w.onlyBuilds(1)
}

func TestASnapshotsSizesAreItsOwn(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for field, spec := range map[string]Spec{
		"vcpus": {VCPUs: 2}, "memory": {MemoryMiB: 512}, "disk": {DiskBytes: 1 << 30}, "cold": {Cold: true}, "template": {Template: "base"},
	} {
		spec.Snapshot = "one"
		var fe *errs.FieldError
		if _, err := w.Create(t.Context(), spec, nil); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", field, err)
		} else if field == "memory" && (!strings.Contains(err.Error(), "256") || !strings.Contains(err.Error(), "512")) {
			t.Errorf("%v does not name both values", err)
		}
	}
	same := w.create(Spec{Snapshot: "one", MemoryMiB: 256, VCPUs: 1})
	if err := errors.Join(same.Destroy(t.Context(), "done"), sb.Destroy(t.Context(), "done")); err != nil {
		t.Error(err)
	}
}

func TestFork(t *testing.T) {
	w := newWorld(t)
	w.network.Slots = 10
	sb := w.create(Spec{})
	clones, _, err := sb.Fork(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]bool{sb.Token: true}
	for _, c := range clones {
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		if tokens[c.Sandbox.Token] || c.Sandbox.Build() != sb.Build() {
			t.Errorf("clone %s of build %s", c.Sandbox.ID, c.Sandbox.Build())
		}
		tokens[c.Sandbox.Token] = true
	}
	if slices.ContainsFunc(w.refs(), func(r string) bool { return strings.HasPrefix(r, refFork) }) {
		t.Errorf("references %v", w.refs())
	}
	for _, s := range []*Sandbox{sb, clones[0].Sandbox, clones[1].Sandbox, clones[2].Sandbox} {
		if err := s.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	w.empty()
	w.onlyBuilds(1)
	for _, count := range []int{0, -1, 101} {
		if _, _, err := sb.Fork(t.Context(), count, nil); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%d: %v", count, err)
		}
	}
}

func TestEachCloneFailsForItself(t *testing.T) {
	w := newWorld(t) // with three slots, one of which is taken
	sb := w.create(Spec{})
	clones, _, err := sb.Fork(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, c := range clones {
		if c.Err != nil {
			failed++
			if !errors.Is(c.Err, errs.ErrResourceExhausted) {
				t.Error(c.Err)
			}
			continue
		}
		if err := c.Sandbox.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	if failed != 1 {
		t.Errorf("%d failed, want 1", failed)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

func TestAPagerThatDiesTakesItsMachine(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	w.pagers.die(sb.ID, "out of cheese")
	<-sb.Machine.Done()
	if err := sb.Died(); !strings.Contains(err.Error(), "out of cheese") {
		t.Errorf("%v", err)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

func TestAdopt(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one that is held: %v", err)
	}
	sb.Leave()
	again, err := w.Adopt(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, metadata, _ := w.host.Config(sb.ID)
	if again.Token == sb.Token || metadata[metaToken] != nil {
		t.Errorf("token %s, metadata %v", again.Token, metadata)
	}
	if _, err := again.Pause(t.Context(), "idle"); err != nil {
		t.Error(err)
	}
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("one that is paused: %v", err)
	}
}

func TestAdoptOfAMachineWithoutItsPager(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	sb.Leave()
	w.pagers.die(sb.ID, "killed")
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrUnavailable) || w.state(sb.ID) != Failed {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	<-sb.Machine.Done()
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "pager") {
		t.Errorf("a second time: %v", err)
	}
	if err := w.Destroy(t.Context(), sb.ID, "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

// TestSweepOfWhatWasInterrupted leaves sandboxes in the middle of a pause and of a resume.
func TestSweepOfWhatWasInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(w *world, sb *Sandbox)
		want  State
	}{
		"frozen, and not taken apart": {func(w *world, sb *Sandbox) {
			w.disk.Fail = onlyOn("Remove", errBroken)
			if _, err := sb.Pause(w.t.Context(), "idle"); !errors.Is(err, errBroken) {
				w.t.Error(err)
			}
			w.disk.Fail = nil
		}, Paused},
		"resuming": {func(w *world, sb *Sandbox) {
			if _, err := sb.Pause(w.t.Context(), "idle"); err != nil {
				w.t.Fatal(err)
			}
			w.setState(sb.ID, Resuming)
		}, Paused},
		"pausing, not frozen": {func(w *world, sb *Sandbox) {
			sb.Leave()
			w.setState(sb.ID, Pausing)
		}, Running},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{Keep: true})
			c.leave(w, sb)
			done, err := w.Sweep(t.Context(), false)
			if err != nil || len(done) != 1 || !done[0].Kept {
				t.Fatalf("%+v, %v", done, err)
			}
			if w.state(sb.ID) != c.want {
				t.Errorf("it is %s, want %s", w.state(sb.ID), c.want)
			}
			if _, err := w.Sweep(t.Context(), true); err != nil {
				t.Error(err)
			}
			w.empty()
			w.onlyBuilds(1)
		})
	}
}

func (w *world) setState(id string, s State) {
	w.t.Helper()
	f, r, err := w.holdRecord(id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.release()
	r.Before = r.Build
	r.change(s, "test")
	if err := f.write(r); err != nil {
		w.t.Fatal(err)
	}
}

func TestSweepOfReferences(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	for _, ref := range []snapshot.Ref{{Kind: refSandbox, Name: "cl-00000000000000000000"}, {Kind: refFork, Name: "cl-00000000000000000001"}} {
		if err := w.builds.SetRef(t.Context(), ref, sb.Build()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	if want := fmt.Sprintf("[sandbox/%s template/tp-base]", sb.ID); fmt.Sprint(w.refs()) != want {
		t.Errorf("references %v, want %s", w.refs(), want)
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

// TestAFreezeThatWasInterrupted dies in a snapshot when it is made and its reference has moved: the machine stands still, and the
// record tells of the build before. Whoever adopts it next lets it go on, and a pause that is interrupted then is not taken for done.
func TestAFreezeThatWasInterrupted(t *testing.T) {
	for name, sweep := range map[string]bool{"adopted at once": false, "swept before": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{Keep: true})
			before := sb.Build()
			if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			frozen := sb.Build()
			if err := sb.Machine.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			sb.record.Build = before
			if err := sb.folder.write(sb.record); err != nil {
				t.Fatal(err)
			}
			sb.Leave()
			still := true
			w.vmm.OnResume = func(context.Context, string) error { still = false; return nil }
			if sweep {
				if done, err := w.Sweep(t.Context(), false); err != nil || !done[0].Kept {
					t.Fatalf("%+v, %v", done, err)
				}
				if still {
					t.Error("a sweep left it standing still")
				}
			}
			again, err := w.Adopt(t.Context(), sb.ID)
			if err != nil {
				t.Fatal(err)
			}
			if still {
				t.Error("it stands still")
			}
			w.guest.quiesce = func(context.Context) error { return errBroken }
			if _, err := again.Pause(t.Context(), "idle"); !errors.Is(err, errBroken) || again.Build() != frozen || !again.record.DiffLost {
				t.Errorf("%v, build %s, want %s", err, again.Build(), frozen)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAMachineThatDiesInAPause is a failed sandbox, and no running one.
func TestAMachineThatDiesInAPause(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	w.guest.quiesce = func(ctx context.Context) error {
		if err := sb.Machine.Kill(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errs.ErrUnavailable) || w.state(sb.ID) != Failed {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

// TestAFullDisk is told as such, and does not keep anybody from making room.
func TestAFullDisk(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	w.guest.quiesce = func(context.Context) error { return unix.ENOSPC }
	if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errs.ErrResourceExhausted) || w.state(sb.ID) != Running {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
}

// TestAPagerThatDiesAfterItsSandboxWasLeft ends nothing: the id may be another machine's by then.
func TestAPagerThatDiesAfterItsSandboxWasLeft(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	sb.Leave()
	w.pagers.die(sb.ID, "killed")
	for range 100 {
		runtime.Gosched()
	}
	if _, _, running := w.host.Config(sb.ID); !running {
		t.Error("the machine was ended by who had left it")
	}
	if done, err := w.Sweep(t.Context(), false); err != nil || len(done) != 1 || !done[0].Removed() {
		t.Errorf("a sweep keeps a machine whose pager is gone: %+v, %v", done, err)
	}
	w.empty()
}

// TestSweepOfWorkingSets removes those of builds that are gone.
func TestSweepOfWorkingSets(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	for _, name := range []string{sb.Build(), sb.Build() + ".cl-00000000000000000000", "bd-00000000000000000000"} {
		if err := os.MkdirAll(filepath.Dir(w.workingSet(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.workingSet(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Dir(w.workingSet("x")))
	if err != nil || len(entries) != 1 || entries[0].Name() != sb.Build() {
		t.Errorf("%v, %v", entries, err)
	}
}
