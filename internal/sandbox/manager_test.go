package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/disk/disktest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/networktest"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/vmmtest"
)

// files are templates that are plain files: one, "base".
type files struct{ dir string }

func (f files) Get(name string) (template.Template, error) {
	if _, err := os.Stat(f.Path("gone")); err == nil || name != "base" {
		return template.Template{}, fmt.Errorf("template %q: %w", name, errs.ErrNotFound)
	}
	blob := func(role string) template.Blob {
		sum := sha256.Sum256([]byte(role))
		return template.Blob{Digest: hex.EncodeToString(sum[:]), Size: 8192}
	}
	return template.Template{Name: name, ID: "tp-base", Rootfs: blob("rootfs"), Kernel: blob("kernel"), Initramfs: blob("initramfs"),
		Modules: blob("modules"), VCPUs: 1, MemoryMiB: 256}, nil
}

func (f files) List() ([]string, error) { return []string{"base", "broken"}, nil }

// Own has all the files of the one template.
func (f files) Own(name string) (template.Template, []template.Blob, error) {
	t, err := f.Get(name)
	return t, slices.Collect(maps.Values(t.Blobs())), err
}

// Delete removes files, and the template with them.
func (f files) Delete(_ context.Context, _ string, own []template.Blob) error {
	var failed []error
	for _, b := range own {
		failed = append(failed, os.Remove(f.Path(b.Digest)))
	}
	return errors.Join(append(failed, os.WriteFile(f.Path("gone"), nil, 0o600))...)
}

func (f files) Path(digest string) string { return filepath.Join(f.dir, digest) }

// world is a manager on fakes.
type world struct {
	*Manager
	t       *testing.T
	host    *vmmtest.Host
	vmm     *vmmtest.Fake
	disk    *disktest.Fake
	network *networktest.Fake
	pagers  *fakePagers
	guest   *fakeGuest
	print   manifest.Host
	boot    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	state, images := t.TempDir(), files{t.TempDir()}
	base, err := images.Get("base")
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range base.Blobs() {
		if err := os.WriteFile(images.Path(blob.Digest), make([]byte, blob.Size), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{t: t, host: vmmtest.NewHost(), disk: &disktest.Fake{Dir: state}, network: &networktest.Fake{Slots: 3},
		pagers: &fakePagers{dir: state, running: map[string]*fakePager{}}, guest: &fakeGuest{},
		boot: "first", print: manifest.Host{Firecracker: "1.0.0", SnapshotFormat: "1", CPU: manifest.CPU{Vendor: "Test", Family: 1}, KernelRelease: "6.1"}}
	w.vmm = &vmmtest.Fake{Host: w.host}
	w.Manager, err = NewManager(Config{StateDir: state, VMM: w.vmm, Disk: w.disk, Network: w.network, Pagers: w.pagers, Guest: w.guest,
		Templates: images, UIDBase: 5000, Slots: 100, StartTimeout: time.Minute,
		Host: func(context.Context) (manifest.Host, error) { return w.print, nil }, Boot: func() (string, error) { return w.boot, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) create(spec Spec) *Sandbox {
	w.t.Helper()
	if spec.Snapshot == "" {
		spec.Template = "base"
	}
	sb, err := w.Create(w.t.Context(), spec, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return sb
}

// empty fails the test if anything of any sandbox is left.
func (w *world) empty() {
	w.t.Helper()
	if ids, err := w.known(w.t.Context()); err != nil || len(ids) != 0 {
		w.t.Errorf("left: %v, %v", ids, err)
	}
}

func TestALife(t *testing.T) {
	w := newWorld(t)
	var told []string
	sb, err := w.Create(t.Context(), Spec{Template: "base", MemoryMiB: 300, Policy: network.Policy{Internet: true}},
		func(s vmm.Step) { told = append(told, s.Name) })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"record", "network", "disk", "vmm", "guest"} {
		if !slices.Contains(told, step) {
			t.Errorf("nobody was told of %s: %v", step, told)
		}
	}
	cfg, metadata, running := w.host.Config(sb.ID)
	taken := w.network.Taken()[sb.ID]
	if !running || cfg.MemoryMiB != 300 || cfg.VCPUs != 1 || cfg.Jail.UID != 5000+taken.Slot.Index || !taken.Policy.Internet {
		t.Errorf("%+v with %+v", cfg, taken)
	}
	if cfg.Jail.Limits.MemoryMaxBytes <= 300<<20 || cfg.Jail.Limits.PIDsMax <= 0 {
		t.Errorf("limits %+v", cfg.Jail.Limits)
	}
	if metadata[metaSandboxID] != sb.ID || metadata[metaTemplateID] != "tp-base" {
		t.Errorf("metadata %v", metadata)
	}
	if _, there := metadata[metaToken]; there || len(sb.Token) != 64 {
		t.Errorf("the token is still in %v", metadata)
	}
	if list, err := w.List(); err != nil || len(list) != 1 || list[0].State != Running || list[0].Machine == nil {
		t.Errorf("%+v, %v", list, err)
	}
	record, err := os.ReadFile(filepath.Join(sb.folder.path, recordName))
	if err != nil || strings.Contains(string(record), sb.Token) {
		t.Errorf("the record has the token, or %v", err)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

func TestBadSpecsMakeNothing(t *testing.T) {
	w := newWorld(t)
	for field, spec := range map[string]Spec{
		"vcpus": {Template: "base", VCPUs: 33}, "memory": {Template: "base", MemoryMiB: 1}, "disk": {Template: "base", DiskBytes: 1},
	} {
		var fe *errs.FieldError
		if _, err := w.Create(t.Context(), spec, nil); !errors.As(err, &fe) || fe.Field != field || fe.Fix == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := w.Create(t.Context(), Spec{Template: "nope"}, nil); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	w.empty()
}

func TestAFailedStartLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	for name, set := range map[string]func(w *world){
		"network": func(w *world) { w.network.Fail = onlyOn("acquire", broken) },
		"disk":    func(w *world) { w.disk.Fail = onlyOn("Create", broken) },
		"machine": func(w *world) { w.vmm.OnStart = func(context.Context, vmm.Config) error { return broken } },
		"late":    func(w *world) { w.vmm.OnStarted = func(context.Context, vmm.Machine) error { return broken } },
		"guest":   func(w *world) { w.guest.ready = func(context.Context) error { return broken } },
		"token":   func(w *world) { w.vmm.OnPatch = func(context.Context, string, map[string]any) error { return broken } },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			set(w)
			if _, err := w.Create(t.Context(), Spec{Template: "base", Cold: true}, nil); !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
			w.empty()
		})
	}
}

// onlyOn is a hook that fails one operation.
func onlyOn(op string, err error) func(string, string) error {
	return func(got, _ string) error {
		if got == op {
			return err
		}
		return nil
	}
}

func TestAMachineThatDiesWhileItStarts(t *testing.T) {
	w := newWorld(t)
	w.guest.ready = func(ctx context.Context) error {
		machines, err := w.vmm.List(ctx)
		if err != nil || len(machines) != 1 {
			t.Errorf("%v, %v", machines, err)
		}
		w.host.End(machines[0], vmm.Exit{Reason: vmm.ExitOOM, Detail: "out of memory"})
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := w.Create(t.Context(), Spec{Template: "base", Cold: true}, nil)
	if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("%v", err)
	}
	w.empty()
}

func TestACallerThatHangsUpLeavesNothing(t *testing.T) {
	w := newWorld(t)
	left := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	w.guest.ready = func(ctx context.Context) error {
		cancel(left)
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := w.Create(ctx, Spec{Template: "base", Cold: true}, nil); !errors.Is(err, left) {
		t.Errorf("%v", err)
	}
	w.empty()
}

// TestSweep has one sandbox of each kind: in use, kept and running, kept and dead, left, and objects without a folder.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.network.Slots = 10
	inUse, kept, keptDead, left := w.create(Spec{Cold: true}), w.create(Spec{Cold: true, Keep: true}), w.create(Spec{Cold: true, Keep: true}), w.create(Spec{Cold: true})
	kept.Leave()
	keptDead.Leave()
	left.Leave()
	w.host.End(keptDead.ID, vmm.Exit{Reason: vmm.ExitGuest})
	orphan := id.New()
	if _, err := w.network.Acquire(t.Context(), orphan, network.Policy{}, w.uid); err != nil {
		t.Fatal(err)
	}
	check := func(all bool, want map[string]string) {
		t.Helper()
		done, err := w.Sweep(t.Context(), all)
		if err != nil {
			t.Error(err)
		}
		got := map[string]string{}
		for _, s := range done {
			got[s.ID] = map[bool]string{s.Removed(): "removed", s.InUse: "in use", s.Kept: "kept"}[true]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("swept %v, want %v", got, want)
		}
	}
	check(false, map[string]string{inUse.ID: "in use", kept.ID: "kept", keptDead.ID: "removed", left.ID: "removed", orphan: "removed"})
	check(true, map[string]string{inUse.ID: "in use", kept.ID: "removed"})
	if err := inUse.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

func TestWhatCannotBeRemovedStaysOnRecord(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Cold: true})
	stuck := errors.New("stuck")
	w.disk.Fail = onlyOn("Remove", stuck)
	if err := sb.Destroy(t.Context(), "done"); !errors.Is(err, stuck) {
		t.Errorf("%v", err)
	}
	if _, held := w.network.Taken()[sb.ID]; held {
		t.Error("what could be removed was not")
	}
	sb.folder.release()
	if done, err := w.Sweep(t.Context(), false); !errors.Is(err, stuck) || len(done) != 1 || done[0].Err == "" {
		t.Errorf("%+v, %v", done, err)
	}
	w.disk.Fail = nil
	if done, err := w.Sweep(t.Context(), false); err != nil || len(done) != 1 || !done[0].Removed() {
		t.Errorf("%+v, %v", done, err)
	}
	w.empty()
}

func TestDestroyByID(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Cold: true, Keep: true})
	if err := w.Destroy(t.Context(), sb.ID, "test"); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one that is held: %v", err)
	}
	sb.Leave()
	if err := w.Destroy(t.Context(), sb.ID, "test"); err != nil {
		t.Error(err)
	}
	if err := w.Destroy(t.Context(), sb.ID, "test"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("one that is gone: %v", err)
	}
	if err := w.Destroy(t.Context(), "../etc", "test"); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("no id: %v", err)
	}
	w.empty()
}

// TestTemplates: one that is not whole is left out, and the others are told of.
func TestTemplates(t *testing.T) {
	w := newWorld(t)
	list, err := w.Templates()
	if err != nil || len(list) != 1 || list[0].Name != "base" {
		t.Errorf("%v, %v", list, err)
	}
}
