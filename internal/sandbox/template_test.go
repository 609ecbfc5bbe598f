package sandbox

import (
	"errors"
	"os"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm"
)

// TestATemplateInUseStays: what was made of it is named, whatever it is, and once that is gone the template goes with its warm build.
func TestATemplateInUseStays(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	sb := w.create(Spec{})
	refused := func(user string) {
		t.Helper()
		err := w.DeleteTemplate(ctx, "base")
		if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), user) {
			t.Errorf("%v, want one that names %s", err, user)
		}
	}
	refused("sandbox " + sb.ID)
	if _, err := sb.Snapshot(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Pause(ctx, "idle"); err != nil {
		t.Fatal(err)
	}
	refused("sandbox " + sb.ID)
	if err := w.Destroy(ctx, sb.ID, "done"); err != nil {
		t.Fatal(err)
	}
	refused("snapshot kept")
	from := w.create(Spec{Snapshot: "kept"})
	refused("sandbox " + from.ID)
	if err := errors.Join(from.Destroy(ctx, "done"), w.DeleteSnapshot(ctx, "kept")); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteTemplate(ctx, "base"); err != nil {
		t.Fatal(err)
	}
	if refs := w.refs(); len(refs) != 0 {
		t.Errorf("references %v", refs)
	}
	w.onlyBuilds(0)
	if _, err := w.Create(ctx, Spec{Template: "base"}, nil); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it is started from: %v", err)
	}
	if err := w.DeleteTemplate(ctx, "base"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it is deleted twice: %v", err)
	}
	var field *errs.FieldError
	if _, err := w.Create(ctx, Spec{Template: "../base"}, nil); !errors.As(err, &field) {
		t.Errorf("a name that is none: %v", err)
	}
}

// TestADeleteDuringAStart is refused at each step of the start, also at the first, when there is no record of it yet.
func TestADeleteDuringAStart(t *testing.T) {
	w := newWorld(t)
	tried := 0
	sb, err := w.Create(t.Context(), Spec{Template: "base"}, func(vmm.Step) {
		tried++
		if err := w.DeleteTemplate(t.Context(), "base"); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Error(err)
		}
	})
	if err != nil || tried == 0 {
		t.Fatal(tried, err)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	release, err := w.keepTemplate(t.Context(), "base") // as another process that has found the template and written no record
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteTemplate(t.Context(), "base"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	release()
	if _, err := os.Stat(w.cfg.Templates.Path("gone")); err == nil {
		t.Error("it is deleted")
	}
}
