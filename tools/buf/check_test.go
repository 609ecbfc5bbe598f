package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, root string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCompare(t *testing.T) {
	want := map[string]string{"a/x.pb.go": "1", "a/b/x.connect.go": "2"}
	for _, c := range []struct {
		name, complaint string
		have            map[string]string
	}{
		{"same", "", map[string]string{"a/x.pb.go": "1", "a/b/x.connect.go": "2", "a/x.proto": "other files don't count"}},
		{"changed", "a/x.pb.go", map[string]string{"a/x.pb.go": "0", "a/b/x.connect.go": "2"}},
		{"missing", "a/b/x.connect.go", map[string]string{"a/x.pb.go": "1"}},
		{"left over", "a/y.pb.go (no proto makes it)", map[string]string{"a/x.pb.go": "1", "a/b/x.connect.go": "2", "a/y.pb.go": "3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := compare(write(t, t.TempDir(), want), write(t, t.TempDir(), c.have))
			if c.complaint == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.complaint) {
				t.Fatalf("got %v, want a word of %q", err, c.complaint)
			}
		})
	}
	if err := compare(t.TempDir(), t.TempDir()); err == nil {
		t.Fatal("nothing generated was taken for up to date")
	}
}

// TestCompatible: the baseline is what the protos are, or the check says what to do. Buf itself is stood in for: what it says of a
// change is its own tests' matter.
func TestCompatible(t *testing.T) {
	for _, c := range []struct{ name, now, breaks, complaint string }{
		{"the same", "old", "exit 0", ""},
		{"what is new is not in it", "new", "exit 0", "lacks what is new"},
		{"it breaks a caller", "old", "exit 100", "break callers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(write(t, t.TempDir(), map[string]string{"proto/baseline.binpb": "old"}))
			buf := filepath.Join(t.TempDir(), "buf")
			script := "#!/bin/sh\ncase $1 in breaking) " + c.breaks + ";; build) printf " + c.now + " >$4;; esac\n"
			if err := os.WriteFile(buf, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			err := compatible(t.Context(), buf, t.TempDir())
			if c.complaint == "" && err != nil || c.complaint != "" && (err == nil || !strings.Contains(err.Error(), c.complaint)) {
				t.Errorf("%v, want a word of %q", err, c.complaint)
			}
		})
	}
}
