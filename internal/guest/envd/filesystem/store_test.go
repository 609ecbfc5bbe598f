package filesystem

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// entries are the names in a folder.
func entries(t testing.TB, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// TestStore stores new files and others in their place.
func TestStore(t *testing.T) {
	home := self(t).Home
	at := func(name string) string { return filepath.Join(home, name) }
	write(t, at("old"), "a longer text than the new one")
	write(t, at("private"), "x")
	if err := os.Chmod(at("private"), 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, at("real/target"), "x")
	symlink(t, "real/target", at("link"))
	symlink(t, "real", at("dir"))
	symlink(t, "nowhere", at("broken"))
	symlink(t, "loop", at("loop"))
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, lands string
		mode        *uint32
		want        os.FileMode
		kind        error
	}{
		{"new", "new", nil, 0o644, nil}, {"a/b/new", "a/b/new", nil, 0o644, nil}, {"old", "old", nil, 0o644, nil},
		{"private", "private", nil, 0o640, nil}, {"private", "private", pointer(uint32(0o7755)), 0o755, nil},
		{"empty-mode", "empty-mode", pointer(uint32(0)), 0, nil},
		{"link", "real/target", nil, 0o644, nil}, {"dir/in", "real/in", nil, 0o644, nil}, {strings.Repeat("n", 255), "", nil, 0o644, nil},
		{"broken", "", nil, 0, errs.ErrInvalid}, {"loop", "", nil, 0, errs.ErrFailedPrecondition}, {"dir", "", nil, 0, errs.ErrInvalid},
		{"real", "", nil, 0, errs.ErrInvalid}, {"pipe", "", nil, 0, errs.ErrInvalid}, {"old/x", "", nil, 0, errs.ErrInvalid},
	} {
		err := Store(at(c.name), strings.NewReader("new text"), Options{Mode: c.mode})
		wants(t, c.name, err, c.kind)
		if c.kind != nil || c.lands == "" {
			continue
		}
		st, err := os.Lstat(at(c.lands))
		if err != nil || st.Mode() != c.want || st.Size() != 8 {
			t.Errorf("%s: got %v, %v", c.name, st, err)
		}
	}
	wants(t, "the root", Store("/", strings.NewReader(""), Options{}), errs.ErrInvalid)
	if got := entries(t, home); strings.Contains(got, tempPrefix) {
		t.Errorf("left over: %s", got)
	}
	if target, err := os.Readlink(at("link")); err != nil || target != "real/target" {
		t.Errorf("the link is %q now, %v", target, err)
	}
}

// TestABrokenUploadLeavesNothing, and what was there stays.
func TestABrokenUploadLeavesNothing(t *testing.T) {
	home := self(t).Home
	write(t, filepath.Join(home, "old"), "old")
	gone := errors.New("the client is gone")
	for _, name := range []string{"old", "new"} {
		err := Store(filepath.Join(home, name), io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), iotest.ErrReader(gone)), Options{})
		wants(t, name, err, gone)
	}
	if got := entries(t, home); got != "old" || read(t, filepath.Join(home, "old")) != "old" {
		t.Errorf("there are %q", got)
	}
}

// TestMetadata is replaced with the file.
func TestMetadata(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	path := filepath.Join(u.Home, "f")
	for _, meta := range []map[string]string{{"a": "1", "b": "2"}, {"b": "3"}, nil} {
		err := Store(path, strings.NewReader("x"), Options{Metadata: meta})
		if errors.Is(err, errs.ErrFailedPrecondition) && meta != nil {
			continue // a file system that has no attributes for users says so
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Stat(t.Context(), u, "f")
		if err != nil || len(e.Metadata) != len(meta) {
			t.Errorf("got %v, %v, want %v", e.Metadata, err, meta)
		}
		for key, value := range meta {
			if e.Metadata[key] != value {
				t.Errorf("got %v, want %v", e.Metadata, meta)
			}
		}
	}
	err := Store(filepath.Join(u.Home, "large"), strings.NewReader("x"), Options{Metadata: map[string]string{"a": strings.Repeat("x", 1<<20)}})
	if err == nil {
		t.Error("metadata of a megabyte")
	}
	if got := entries(t, u.Home); strings.Contains(got, tempPrefix) || strings.Contains(got, "large") {
		t.Errorf("left over: %s", got)
	}
}

// TestOpen opens regular files and waits for nothing.
func TestOpen(t *testing.T) {
	home := self(t).Home
	at := func(name string) string { return filepath.Join(home, name) }
	write(t, at("file"), "text")
	symlink(t, "file", at("link"))
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]error{
		at("file"): nil, at("link"): nil, at("nope"): errs.ErrNotFound, home: errs.ErrInvalid, at("pipe"): errs.ErrInvalid,
		"/dev/null": errs.ErrInvalid, at("file/x"): errs.ErrInvalid,
	} {
		f, _, err := Open(path)
		wants(t, path, err, kind)
		if err == nil {
			f.Close()
		}
	}
}

// TestStoreHelper is the process that TestAKilledUploadLeavesNothing kills.
func TestStoreHelper(t *testing.T) {
	if path := os.Getenv("WRENN_TEST_STORE"); path != "" {
		t.Error(Store(path, os.Stdin, Options{}))
	}
}

// TestAKilledUploadLeavesNothing: whoever stores a file may be killed, and what is left is what was there.
func TestAKilledUploadLeavesNothing(t *testing.T) {
	home := self(t).Home
	write(t, filepath.Join(home, "old"), "old")
	for _, name := range []string{"old", "new"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStoreHelper$")
		cmd.Env = append(os.Environ(), "WRENN_TEST_STORE="+filepath.Join(home, name))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(make([]byte, 1<<20)); err != nil { // more than a pipe holds: it is being stored by then
			t.Fatal(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if got := entries(t, home); got != "old" || read(t, filepath.Join(home, "old")) != "old" {
			t.Errorf("%s: there are %q", name, got)
		}
	}
}

// TestWithoutUnnamedFiles: a file system that knows none stores files as others do.
func TestWithoutUnnamedFiles(t *testing.T) {
	with := openUnnamed
	defer func() { openUnnamed = with }()
	openUnnamed = func(int) (int, error) { return -1, unix.EOPNOTSUPP }
	TestStore(t)
	TestABrokenUploadLeavesNothing(t)
}
