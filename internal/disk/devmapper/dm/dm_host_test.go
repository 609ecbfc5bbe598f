//go:build hosttest

package dm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func open(t *testing.T) *Control {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// made makes a device for the length of the test.
func made(t *testing.T, c *Control, name string) Info {
	t.Helper()
	info, err := c.Create(name, "TEST-"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove("TEST-" + name); err != nil && !errors.Is(err, errs.ErrNotFound) {
			t.Error(err)
		}
	})
	return info
}

// TestLife takes a device through its three steps.
func TestLife(t *testing.T) {
	c := open(t)
	const name, uuid = "dm-test-life", "TEST-dm-test-life"
	dev := made(t, c, name).Dev
	table := []Target{{0, 16, "zero", ""}, {16, 8, "error", ""}}
	for _, step := range []struct {
		what string
		do   func() error
		live bool
	}{
		{"created", func() error { return nil }, false},
		{"loaded", func() error { return c.Load(uuid, true, table...) }, false},
		{"resumed", func() error { return c.Resume(uuid) }, true},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		info, err := c.Info(uuid)
		want := Info{Name: name, UUID: uuid, Dev: dev, Live: step.live, ReadOnly: info.ReadOnly}
		if err != nil || info != want {
			t.Errorf("%s: %+v, %v; want %+v", step.what, info, err, want)
		}
	}
	if info, err := c.InfoByName(name); err != nil || info.UUID != uuid || !info.ReadOnly {
		t.Errorf("by name: %+v, %v", info, err)
	}
	if got, err := c.Status(uuid); err != nil || !slices.Equal(got, table) {
		t.Errorf("status %+v, %v", got, err)
	}
	if _, err := c.Create(name, "TEST-other"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the same name: %v", err)
	}
	if _, err := c.Create("dm-test-other", uuid); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the same uuid: %v", err)
	}
	if err := c.Remove(uuid); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"remove": c.Remove(uuid), "load": c.Load(uuid, false, table...), "resume": c.Resume(uuid), "info": second(c.Info(uuid)),
		"status": second(c.Status(uuid)),
	} {
		if !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s of no device: %v", what, err)
		}
	}
}

func TestInUse(t *testing.T) {
	c := open(t)
	below := made(t, c, "dm-test-below")
	if err := errors.Join(c.Load("TEST-dm-test-below", false, Target{0, 8, "zero", ""}), c.Resume("TEST-dm-test-below")); err != nil {
		t.Fatal(err)
	}
	made(t, c, "dm-test-above")
	on := fmt.Sprintf("%d:%d 0", unix.Major(below.Dev), unix.Minor(below.Dev))
	if err := c.Load("TEST-dm-test-above", true, Target{0, 8, "linear", on}); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove("TEST-dm-test-below"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("remove of what a table uses: %v", err)
	}
	if info, err := c.Info("TEST-dm-test-below"); err != nil || info.Opens != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := c.Load("TEST-dm-test-above", true, Target{0, 8, "no-such-target", ""}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a target that there is not: %v", err)
	}
}

// TestManyDevices makes more than fit the first answer's room.
func TestManyDevices(t *testing.T) {
	const many = 200
	c := open(t)
	want := map[string]bool{}
	for i := range many {
		name := fmt.Sprintf("dm-test-%s-%d", strings.Repeat("x", 100), i)
		made(t, c, name)
		want[name] = true
	}
	devices, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		delete(want, d.Name)
	}
	if len(want) != 0 {
		t.Errorf("%d of %d devices are not listed", len(want), many)
	}
}

func TestTargetVersion(t *testing.T) {
	c := open(t)
	for _, target := range []string{"linear", "snapshot", "zero"} {
		if v, err := c.TargetVersion(target); err != nil || v.Type != target || v.Version[0] < 1 {
			t.Errorf("%s: %+v, %v", target, v, err)
		}
	}
	if v, err := c.TargetVersion("nonsense"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("nonsense: %+v, %v", v, err)
	}
}

func TestWait(t *testing.T) {
	c := open(t)
	broken := errors.New("broken")
	if err := c.Wait(t.Context(), func() (bool, error) { return true, nil }); err != nil {
		t.Errorf("done at once: %v", err)
	}
	if err := c.Wait(t.Context(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("a failing check: %v", err)
	}
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := c.Wait(ctx, func() (bool, error) { cancel(why); return false, nil })
	if !errors.Is(err, why) {
		t.Errorf("the caller left: %v", err)
	}
}
