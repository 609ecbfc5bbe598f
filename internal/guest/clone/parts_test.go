package clone

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestNewUUID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		u := newUUID()
		if !uuid.MatchString(u) || seen[u] {
			t.Fatalf("got %q", u)
		}
		seen[u] = true
	}
}

// covered is a boot id whose file counts as mounted: the two are one.
func covered(t *testing.T) bootID {
	path := filepath.Join(t.TempDir(), "wrenn", "boot_id")
	return bootID{kernel: path, cover: path}
}

func TestBootIDIsWrittenInPlace(t *testing.T) {
	b := covered(t)
	var before os.FileInfo
	last := ""
	for range 3 {
		if err := b.renew(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(b.cover)
		if err != nil || string(text) == last || !uuid.MatchString(strings.TrimSuffix(string(text), "\n")) || len(text) != 37 {
			t.Errorf("got %q, %v", text, err)
		}
		info, err := os.Stat(b.cover)
		if err != nil || info.Mode() != 0o444 || before != nil && !os.SameFile(info, before) {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
		last, before = string(text), info
		if err := os.Chmod(b.cover, 0o644); err != nil { // who is not root can't write it otherwise
			t.Fatal(err)
		}
	}
}

func TestBootIDLeavesWhatIsNoFile(t *testing.T) {
	b := covered(t)
	if err := os.MkdirAll(filepath.Dir(b.cover), 0o755); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, b.cover); err != nil {
		t.Fatal(err)
	}
	if err := b.renew(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %v", err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
		t.Errorf("the link's target has %q, %v", text, err)
	}
	if err := errors.Join(os.Remove(b.cover), unix.Mkfifo(b.cover, 0o600)); err != nil {
		t.Fatal(err)
	}
	r, err := unix.Open(b.cover, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // so that it can be opened for writing
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(r)
	if err := b.renew(); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestReadHost(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	if err := os.WriteFile(whole, []byte(strings.Repeat("r", entropyBytes+100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readHost(t.Context(), whole); err != nil || string(got) != strings.Repeat("r", entropyBytes) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := readHost(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := readHost(t.Context(), dir); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a folder: %v", err)
	}
}

// TestHostThatGivesLittle reads from a device that has a little at a time, and from one that stops.
func TestHostThatGivesLittle(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() {
		for range entropyBytes / 64 {
			_, _ = w.Write(make([]byte, 64))
			time.Sleep(time.Millisecond)
		}
	}()
	if got, err := readHost(t.Context(), pipe); err != nil || len(got) != entropyBytes {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := readHost(ctx, pipe); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 of 256") {
		t.Errorf("nothing: %v", err)
	}
}

// TestStirFails shows that what the kernel does not take is an error, whether or not the host gives something.
func TestStirFails(t *testing.T) {
	if _, err := (random{pool: os.DevNull, host: "/none"}).stir(t.Context()); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("no random pool: %v", err)
	}
	if _, err := (random{pool: os.DevNull, host: "/dev/zero"}).stir(t.Context()); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("no random pool, but a host: %v", err)
	}
	if _, err := (random{pool: "/none", host: "/none"}).stir(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no pool: %v", err)
	}
}
