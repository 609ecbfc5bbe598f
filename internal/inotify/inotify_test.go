package inotify

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestUntil(t *testing.T) {
	dir := t.TempDir()
	w, err := New(dir, Created)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	asked := make(chan struct{}, 100)
	there := func() (bool, error) {
		asked <- struct{}{}
		_, err := os.Stat(filepath.Join(dir, "b"))
		return err == nil, nil
	}
	done := make(chan error)
	go func() { done <- w.Until(t.Context(), there) }()
	<-asked
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestUntilEnds(t *testing.T) {
	w, err := New(t.TempDir(), Created)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	late, broken := errors.New("late"), errors.New("broken")
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := make(chan struct{})
	go func() {
		<-asked
		cancel(late)
	}()
	err = w.Until(ctx, func() (bool, error) {
		close(asked)
		return false, nil
	})
	if !errors.Is(err, late) {
		t.Errorf("Until = %v, want the context's cause", err)
	}
	if err := w.Until(t.Context(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("Until = %v, want the error of the question", err)
	}
	if _, err := New(filepath.Join(t.TempDir(), "none"), Created); err == nil {
		t.Error("a folder that is not there is watched")
	}
}
