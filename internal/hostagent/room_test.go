package hostagent_test

import (
	"errors"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// TestDiskLimitCountsWhatIsFrozen: memory of sandboxes, warm builds and snapshots, each refused before anything of it is made.
func TestDiskLimitCountsWhatIsFrozen(t *testing.T) {
	w := newWorld(t)
	free := w.agent(quota.Amount{})
	one := w.create(free, hostagent.Spec{})
	each := int64(one.Parts.MemoryMiB)<<20 + one.Parts.DiskBytes
	warm := free.Status().Used.DiskBytes - each
	if warm <= 0 || warm >= each {
		t.Errorf("the warm build takes %d bytes; at most it is %d", warm, each)
	}
	if _, err := free.Destroy(t.Context(), one.ID, "enough"); err != nil {
		t.Fatal(err)
	}
	if got := free.Status().Used.DiskBytes; got != warm {
		t.Errorf("without a sandbox they take %d, want the warm build's %d", got, warm)
	}
	w.close(free)

	a := w.agent(quota.Amount{DiskBytes: warm + each + each/2})
	if got := a.Status().Used.DiskBytes; got != warm {
		t.Errorf("the next agent counts %d, want the warm build's %d", got, warm)
	}
	sb := w.create(a, hostagent.Spec{})
	before := a.Status()
	if _, _, err := a.CreateSnapshot(t.Context(), sb.ID, "much"); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a snapshot that there may be no room for: %v", err)
	}
	if _, _, err := a.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}}); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a second sandbox: %v", err)
	}
	if after := a.Status(); after.Used != before.Used || len(after.States) != len(before.States) {
		t.Errorf("what was refused has changed %+v to %+v", before, after)
	}
	if list, _, err := a.ListSnapshots("", 10); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, _, err := a.Pause(t.Context(), sb.ID, "there is room for that"); err != nil {
		t.Error(err)
	}
}

// TestASnapshotTakesItsDisk as long as it is there.
func TestASnapshotTakesItsDisk(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	without := a.Status().Used.DiskBytes
	if _, _, err := a.CreateSnapshot(t.Context(), sb.ID, "one"); err != nil {
		t.Fatal(err)
	}
	if got := a.Status().Used.DiskBytes; got <= without || got >= without+int64(sb.Parts.MemoryMiB)<<20+sb.Parts.DiskBytes {
		t.Errorf("with a snapshot %d bytes are taken, without %d", got, without)
	}
	if _, err := a.Destroy(t.Context(), sb.ID, "x"); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteSnapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := a.Status().Used; got.DiskBytes >= without || got.Sandboxes != 0 {
		t.Errorf("without either %+v", got)
	}
}

// TestNoRoomForAWarmBuild is found out before it is made.
func TestNoRoomForAWarmBuild(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{DiskBytes: 1 << 30})
	_, _, err := a.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base", DiskBytes: 1 << 30}})
	if !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a disk that leaves no room for the memory: %v", err)
	}
	info := w.create(a, hostagent.Spec{})
	w.close(a)
	each := int64(info.Parts.MemoryMiB)<<20 + info.Parts.DiskBytes
	other := newWorld(t)
	b := other.agent(quota.Amount{DiskBytes: each + each/2})
	_, _, err = b.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}})
	if !errors.Is(err, errs.ErrResourceExhausted) || b.Status().Used != (quota.Amount{}) || len(b.States()) != 0 {
		t.Errorf("a sandbox with a warm build: %v; %+v", err, b.Status())
	}
}
