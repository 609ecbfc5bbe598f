package buildcache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestGetMakesOnce(t *testing.T) {
	t.Setenv(Env, t.TempDir())
	made := 0
	build := func(_ context.Context, dir string) error {
		made++
		return os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o644)
	}
	key := new(Key).Add("a")
	first, err := Get(t.Context(), "thing", key, build)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Get(t.Context(), "thing", key, build)
	if err != nil || second != first || made != 1 {
		t.Fatalf("second = %s, %v; made %d times", second, err, made)
	}
	if other, err := Get(t.Context(), "thing", new(Key).Add("b"), build); err != nil || other == first {
		t.Fatalf("another key gave %s, %v", other, err)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	t.Setenv(Env, t.TempDir())
	boom := errors.New("boom")
	key := new(Key).Add("a")
	_, err := Get(t.Context(), "thing", key, func(_ context.Context, dir string) error {
		_ = os.WriteFile(filepath.Join(dir, "half"), nil, 0o644)
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	dir, err := Get(t.Context(), "thing", key, func(_ context.Context, dir string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Fatalf("the failed build's files are there: %v", entries)
	}
}

func TestKeyFramesItsParts(t *testing.T) {
	if new(Key).Add("ab", "c").Sum() == new(Key).Add("a", "bc").Sum() {
		t.Fatal("the key does not tell its parts apart")
	}
}
