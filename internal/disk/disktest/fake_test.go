package disktest_test

import (
	"errors"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/disktest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

func TestFake(t *testing.T) {
	disktest.Run(t, func(_ *testing.T, stateDir string) disk.Driver { return &disktest.Fake{Dir: stateDir} })
}

func TestFakeFailsOnDemand(t *testing.T) {
	broken, sandboxID := errors.New("broken"), id.New()
	failing, lost, store := "", true, filepath.Join(t.TempDir(), "store")
	f := &disktest.Fake{Dir: t.TempDir(), Lost: func(id string) bool { return lost && id == sandboxID }}
	f.Fail = func(method, _ string) error {
		if method == failing {
			return broken
		}
		return nil
	}
	base, _ := disktest.WriteImage(t, disktest.MiB)
	calls := []struct {
		method string
		call   func() error
	}{
		{"Create", func() error {
			_, err := f.Create(t.Context(), disk.Spec{ID: sandboxID, Base: base})
			return err
		}},
		{"Usage", func() error {
			u, err := f.Usage(t.Context(), sandboxID)
			if err == nil && !u.Failed {
				t.Error("the lost disk has not failed")
			}
			return err
		}},
		{"Freeze", func() error {
			lost = false
			_, err := f.Freeze(t.Context(), sandboxID, store)
			return err
		}},
		{"Flatten", func() error { return f.Flatten(t.Context(), base, store, 0, store+".flat") }},
		{"List", func() error { _, err := f.List(t.Context()); return err }},
		{"Remove", func() error { return f.Remove(t.Context(), sandboxID) }},
	}
	for _, c := range calls {
		failing = c.method
		if err := c.call(); !errors.Is(err, broken) {
			t.Errorf("%s did not fail: %v", c.method, err)
		}
		failing = ""
		if err := c.call(); err != nil {
			t.Errorf("%s after a failure: %v", c.method, err)
		}
	}
}

// TestFakeLost: what a disk that lost a write has is worth nothing, and is not frozen.
func TestFakeLost(t *testing.T) {
	sandboxID := id.New()
	f := &disktest.Fake{Dir: t.TempDir(), Lost: func(string) bool { return true }}
	base, _ := disktest.WriteImage(t, disktest.MiB)
	if _, err := f.Create(t.Context(), disk.Spec{ID: sandboxID, Base: base}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Freeze(t.Context(), sandboxID, filepath.Join(t.TempDir(), "store")); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
}
