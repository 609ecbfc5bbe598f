package filesystem

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// tell describes a tree as package os sees it.
func tell(t *rapid.T, root string) map[string]string {
	tree := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		switch {
		case e.IsDir():
			tree[rel] = "folder"
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			tree[rel] = "link to " + target
		default:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			tree[rel] = "file " + string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestLikeTheSystem does random things to two trees, to one by this package and to the other by package os: they stay the same, both
// succeed or both fail, and a list tells what there is.
func TestLikeTheSystem(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	rounds := 0
	rapid.Check(t, func(r *rapid.T) {
		rounds++
		ours, theirs := filepath.Join(u.Home, "ours"), filepath.Join(u.Home, "theirs")
		for _, root := range []string{ours, theirs} {
			if err := errors.Join(os.RemoveAll(root), os.Mkdir(root, 0o755)); err != nil {
				r.Fatal(err)
			}
		}
		path := rapid.Custom(func(r *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(r, "path"), "/")
		})
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			one, two := path.Draw(r, "one"), path.Draw(r, "two")
			a, b := filepath.Join(ours, one), filepath.Join(theirs, one)
			a2, b2 := filepath.Join(ours, two), filepath.Join(theirs, two)
			var got, want error
			switch what := rapid.SampledFrom([]string{"make", "store", "move", "remove"}).Draw(r, "what"); what {
			case "make":
				_, got = m.MakeDir(r.Context(), u, a)
				if _, err := os.Stat(b); err == nil {
					want = fs.ErrExist
				} else {
					want = os.MkdirAll(b, 0o755)
				}
			case "store":
				got = Store(a, strings.NewReader(two), Options{})
				if want = os.MkdirAll(filepath.Dir(b), 0o755); want == nil {
					want = os.WriteFile(b, []byte(two), 0o644)
				}
			case "move":
				_, got = m.Move(r.Context(), u, a, a2)
				if _, want = os.Lstat(b); want == nil {
					if want = os.MkdirAll(filepath.Dir(b2), 0o755); want == nil {
						want = os.Rename(b, b2)
						if one == two {
							want = nil // package os refuses what the kernel does: a folder under its own name
						}
					}
				}
			case "remove":
				got, want = m.Remove(r.Context(), u, a), os.RemoveAll(b)
				if errors.Is(want, fs.ErrInvalid) || want != nil && got == nil {
					r.Fatalf("remove %s: %v, os: %v", one, got, want)
				}
			}
			if (got == nil) != (want == nil) {
				// Package os will not rename over a folder, the kernel does if it is empty.
				if st, err := os.Stat(a2); got == nil && err == nil && st.IsDir() && errors.Is(want, fs.ErrExist) {
					if err := errors.Join(os.Remove(b2), os.Rename(b, b2)); err != nil {
						r.Fatal(err)
					}
					continue
				}
				r.Fatalf("%s, %s: got %v, package os says %v", one, two, got, want)
			}
		}
		compare(r, m, u, ours, theirs)
	})
	if rounds == 0 {
		t.Fatal("nothing was tried")
	}
}

func compare(r *rapid.T, m *Manager, u user.User, ours, theirs string) {
	a, b := tell(r, ours), tell(r, theirs)
	for path, what := range b {
		if a[path] != what {
			r.Fatalf("%s is %q, package os has %q", path, a[path], what)
		}
	}
	list, err := m.List(r.Context(), u, ours, 9)
	if err != nil || len(list) != len(b) || len(a) != len(b) {
		r.Fatalf("the list has %d entries, there are %d and %d: %v", len(list), len(a), len(b), err)
	}
	for _, e := range list {
		rel, err := filepath.Rel(ours, e.Path)
		if err != nil || (e.Type == Directory) != (b[rel] == "folder") || b[rel] == "" {
			r.Fatalf("%s is listed as %+v, there is %q", rel, e, b[rel])
		}
	}
}
