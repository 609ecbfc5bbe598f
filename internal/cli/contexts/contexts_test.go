package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// configDir has a folder of its own for the test's file, whose path it returns.
func configDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	return filepath.Join(dir, "wrenn", "config.json")
}

func TestChange(t *testing.T) {
	path := configDir(t)
	if f, err := Read(); err != nil || f.Current != "" || len(f.Contexts) != 0 {
		t.Fatal(f, err)
	}
	var all sync.WaitGroup
	for i := range 8 { // none overtakes another
		all.Go(func() {
			if err := Change(func(f *File) error {
				f.Contexts[fmt.Sprint("c", i)] = Server{URL: "http://x", Key: "k"}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	info, err := os.Stat(path)
	f, rerr := Read()
	if err != nil || rerr != nil || info.Mode().Perm() != 0o600 || len(f.Contexts) != 8 {
		t.Errorf("%v, %d contexts, %v %v", info.Mode(), len(f.Contexts), err, rerr)
	}
	refused := errors.New("no")
	if err := Change(func(f *File) error { f.Contexts = nil; return refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
	if err := Change(func(f *File) error { f.Current = "c1"; return f.Remove("c2") }); err != nil {
		t.Error(err)
	}
	if f, err = Read(); err != nil || len(f.Contexts) != 7 || f.Current != "c1" {
		t.Error(f, err)
	}
	if err := errors.Join(f.Remove("c1")); err != nil || f.Current != "" {
		t.Error(f.Current, err)
	}
	if _, err := f.Named("--context", "c1"); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), "c3") {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.new")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	for _, name := range []string{"", "a b", "-x", strings.Repeat("x", 65), "a/b"} {
		if err := CheckName("--name", name); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestFilesThatAreNotOurs: what others may read, or another version wrote, is not used, and not written over.
func TestFilesThatAreNotOurs(t *testing.T) {
	path := configDir(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		content string
		mode    os.FileMode
		says    string
		kind    error
	}{
		{`{"version":1}`, 0o644, "chmod 600", errs.ErrPermissionDenied}, {`{"version":2}`, 0o600, "version 2", errs.ErrCorrupt}, {`{`, 0o600, "mend or remove", errs.ErrCorrupt},
		{strings.Repeat(" ", maxBytes+1), 0o600, "more than", errs.ErrCorrupt},
	} {
		if err := errors.Join(os.WriteFile(path, []byte(c.content), c.mode), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v", c.content, err)
		}
		if err := Change(func(*File) error { return nil }); !errors.Is(err, c.kind) {
			t.Errorf("%.40q is changed: %v", c.content, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"current":"a","contexts":{"a":{"url":"http://x","key":"k"}}}`))
	f.Add([]byte(`{"version":1,"contexts":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decode("x", data)
		if err != nil {
			return
		}
		again, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode("x", again); err != nil || file.Contexts == nil {
			t.Errorf("%s is not read again: %v", again, err)
		}
	})
}
