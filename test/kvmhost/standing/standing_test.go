package standing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// fake is a host whose commands run in this process's place.
type fake struct {
	done   chan struct{}
	once   sync.Once
	err    error
	served sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

func newFake() *fake {
	f := &fake{done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

func (f *fake) Stream() (io.ReadWriteCloser, error) {
	here, there := net.Pipe()
	f.served.Go(func() { _ = new(remote.Server).Serve(f.ctx, there) })
	return here, nil
}

func (f *fake) Done() <-chan struct{} { return f.done }
func (f *fake) Err() error            { return f.err }
func (f *fake) Close() error          { f.cancel(); f.served.Wait(); return nil }

// die ends the host by itself.
func (f *fake) die(err error) { f.once.Do(func() { f.err = err; close(f.done) }) }

// lost is an error that has more to tell.
type lost struct{}

func (lost) Error() string  { return "the host is lost" }
func (lost) Report() string { return "the end of its console" }

// up serves a host and returns when it can be used; the channel has what Serve returns.
func up(t *testing.T, name string, f *fake) <-chan error {
	t.Helper()
	ready, served := make(chan struct{}), make(chan error, 1)
	go func() {
		served <- Serve(context.Background(), name, "memory\n4G", func(context.Context) (Host, error) { return f, nil }, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-served:
		t.Fatalf("Serve = %v", err)
	}
	t.Cleanup(func() { f.die(nil) })
	return served
}

// nothing fails when a folder of hosts has anything in it.
func nothing(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "kvmhost-up"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func cacheFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(buildcache.Env, dir)
	return dir
}

func TestUpAndDown(t *testing.T) {
	cache := cacheFolder(t)
	served := up(t, "one", newFake())
	list, err := List()
	if want := (Info{"one", os.Getpid(), "memory 4G"}); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("List = %v, %v", list, err)
	}
	for range 2 {
		c, err := Connect(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		code, err := c.Run(t.Context(), remote.Command{Args: []string{"sh", "-c", "echo hello; exit 3"}, Stdout: &out})
		if err != nil || code != 3 || out.String() != "hello\n" {
			t.Errorf("Run = %d, %v, %q", code, err, &out)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := Down(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	nothing(t, cache)
	if list, err := List(); err != nil || len(list) > 0 {
		t.Errorf("List = %v, %v", list, err)
	}
}

// TestANameIsTakenOnce: a second host of the name is refused and the first one lives.
func TestANameIsTakenOnce(t *testing.T) {
	cacheFolder(t)
	f := newFake()
	served := up(t, "one", f)
	boot := func(context.Context) (Host, error) { t.Error("it is booted"); return nil, errors.New("no") }
	if err := Serve(t.Context(), "one", "", boot, func() {}); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("Serve = %v", err)
	}
	other := up(t, "two", newFake())
	if list, err := List(); err != nil || len(list) != 2 {
		t.Errorf("List = %v, %v", list, err)
	}
	for name, served := range map[string]<-chan error{"one": served, "two": other} {
		if err := errors.Join(Down(t.Context(), name), <-served); err != nil {
			t.Error(err)
		}
	}
}

// TestAHostDies: who wants it is told how, until it is up again or taken down.
func TestAHostDies(t *testing.T) {
	cache := cacheFolder(t)
	f := newFake()
	served := up(t, "one", f)
	f.die(lost{})
	if err := <-served; !errors.Is(err, lost{}) {
		t.Errorf("Serve = %v", err)
	}
	for _, err := range []error{Lost("one"), func() error { _, err := Connect(t.Context(), "one"); return err }()} {
		if !errors.Is(err, errs.ErrNotFound) || !strings.Contains(fmt.Sprint(err), "the end of its console") {
			t.Errorf("got %v", err)
		}
	}
	if list, err := List(); err != nil || len(list) > 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	served = up(t, "one", newFake())
	if err := Lost("one"); strings.Contains(err.Error(), "console") {
		t.Errorf("it is up again: %v", err)
	}
	if err := errors.Join(Down(t.Context(), "one"), <-served); err != nil {
		t.Error(err)
	}
	f = newFake()
	served = up(t, "one", f)
	f.die(lost{})
	<-served
	if err := Down(t.Context(), "one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Down = %v", err)
	}
	nothing(t, cache)
}

func TestBootFails(t *testing.T) {
	cache, no := cacheFolder(t), errors.New("no memory")
	err := Serve(t.Context(), "one", "", func(context.Context) (Host, error) { return nil, no }, func() { t.Error("it is ready") })
	if !errors.Is(err, no) {
		t.Errorf("Serve = %v", err)
	}
	nothing(t, cache)
}

// TestTheContextTakesItDown, with a connection open.
func TestTheContextTakesItDown(t *testing.T) {
	cache := cacheFolder(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var client *remote.Client
	err := Serve(ctx, "one", "", func(context.Context) (Host, error) { return newFake(), nil }, func() {
		var err error
		if client, err = Connect(t.Context(), "one"); err != nil {
			t.Error(err)
		}
		cancel()
	})
	if err != nil {
		t.Errorf("Serve = %v", err)
	}
	if _, err := client.Run(t.Context(), remote.Command{Args: []string{"true"}}); !errors.Is(err, remote.ErrGone) {
		t.Errorf("Run = %v", err)
	}
	_ = client.Close()
	nothing(t, cache)
}

// TestWhatAKilledProcessLeft is known as such: its lock is free.
func TestWhatAKilledProcessLeft(t *testing.T) {
	cache := cacheFolder(t)
	leave := func() {
		dir := filepath.Join(cache, "kvmhost-up", "one")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{lockFile, socketFile, lostFile} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("1\nx"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave()
	if list, err := List(); err != nil || len(list) > 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	if _, err := Connect(t.Context(), "one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Connect = %v", err)
	}
	if err := Down(t.Context(), "one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Down = %v", err)
	}
	nothing(t, cache)
	leave()
	served := up(t, "one", newFake())
	if err := errors.Join(Down(t.Context(), "one"), <-served); err != nil {
		t.Error(err)
	}
	nothing(t, cache)
}

func TestNames(t *testing.T) {
	cacheFolder(t)
	for _, name := range []string{"", "A", "../x", "a/b", "-a", ".", "a.b", strings.Repeat("a", 32), "a\n"} {
		_, errConnect := Connect(t.Context(), name)
		errServe := Serve(t.Context(), name, "", nil, nil)
		for _, err := range []error{errConnect, errServe, Down(t.Context(), name), Lost(name)} {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	for _, name := range []string{"a", "0-x", strings.Repeat("a", 31)} {
		if _, err := Connect(t.Context(), name); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
