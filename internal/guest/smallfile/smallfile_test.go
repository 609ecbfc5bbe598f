package smallfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func TestUpdate(t *testing.T) {
	servers := func(old []byte) []byte {
		if bytes.Contains(old, []byte("nameserver")) {
			return old
		}
		return []byte("nameserver 1.1.1.1\n")
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T, dir, path string)
		want string
	}{
		{"missing", func(*testing.T, string, string) {}, "nameserver 1.1.1.1\n"},
		{"empty", func(t *testing.T, _, path string) { write(t, path, "") }, "nameserver 1.1.1.1\n"},
		{"own", func(t *testing.T, _, path string) { write(t, path, "nameserver 9.9.9.9\n") }, "nameserver 9.9.9.9\n"},
		{"dangling link", func(t *testing.T, dir, path string) { link(t, "../run/none", path) }, "nameserver 1.1.1.1\n"},
		{"link", func(t *testing.T, dir, path string) {
			write(t, filepath.Join(dir, "target"), "nameserver 8.8.4.4\n")
			link(t, "target", path)
		}, "nameserver 8.8.4.4\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "resolv.conf")
			tc.make(t, dir, path)
			if err := Update(path, servers); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".wrenn-*")); err != nil || left != nil {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

func TestUpdateLeavesWhatIsNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Update(path, func([]byte) []byte { return []byte("x") }); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("update = %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe became %v, %v", info.Mode(), err)
	}
}

func TestUpdateKeepsAFileThatIsRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "same")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Update(path, func(old []byte) []byte { return old }); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
