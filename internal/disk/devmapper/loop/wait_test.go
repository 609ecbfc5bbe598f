package loop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestShowing(t *testing.T) {
	sys := t.TempDir()
	for name, file := range map[string]string{
		"loop0": "/state/sandboxes/a/cow\n", "loop1": "/state/sandboxes/a/cow (deleted)\n", "loop2": "/state/sandboxes/aa/cow\n",
		"loop3": "", "sda": "/state/sandboxes/a/cow\n",
	} {
		dir := filepath.Join(sys, name, "loop")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if file == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "backing_file"), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := showing(sys, "/sandboxes/a/cow")
	if want := []string{"loop0", "loop1"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestAwaitGone(t *testing.T) {
	if err := AwaitGone(t.Context(), "/no/device/shows/this"); err != nil {
		t.Error(err)
	}
}

func TestPoll(t *testing.T) {
	rounds, broken := 0, errors.New("broken")
	if err := poll(t.Context(), func() (bool, error) { rounds++; return rounds == 3, nil }); err != nil || rounds != 3 {
		t.Errorf("%d rounds, %v", rounds, err)
	}
	if err := poll(t.Context(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := poll(ctx, func() (bool, error) { return false, nil }); !errors.Is(err, why) {
		t.Error(err)
	}
}
