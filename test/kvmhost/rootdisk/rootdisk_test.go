package rootdisk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInOrder(t *testing.T) {
	index := []byte("k/net/tun.ko.xz:\nk/md/dm-mod.ko.xz: k/dax.ko.xz\nk/md/dm-snapshot.ko.xz: k/md/dm-bufio.ko.xz k/md/dm-mod.ko.xz k/dax.ko.xz\n" +
		"k/md/dm-bufio.ko.xz: k/md/dm-mod.ko.xz k/dax.ko.xz\nk/dax.ko.xz:\nno colon here\n\n")
	for _, c := range []struct {
		names []string
		want  []string
	}{
		{nil, nil},
		{[]string{"tun"}, []string{"k/net/tun.ko.xz"}},
		{[]string{"dm_snapshot"}, []string{"k/dax.ko.xz", "k/md/dm-mod.ko.xz", "k/md/dm-bufio.ko.xz", "k/md/dm-snapshot.ko.xz"}},
		{[]string{"dm_mod", "tun", "dm_bufio", "dm_mod"}, []string{"k/dax.ko.xz", "k/md/dm-mod.ko.xz", "k/net/tun.ko.xz", "k/md/dm-bufio.ko.xz"}},
	} {
		got, err := inOrder(index, c.names)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, %v", c.names, got, err)
		}
	}
	for _, name := range []string{"kvm", "dm-mod", ""} {
		if got, err := inOrder(index, []string{name}); err == nil {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

// TestInOrderOfAnyModules: each module comes once, after all that it needs.
func TestInOrderOfAnyModules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "modules")
		path := func(i int) string { return fmt.Sprintf("d/m-%d.ko", i) }
		needs := make([][]int, n) // of what has a lower number, all of it, and the highest first, as depmod lists it
		var index strings.Builder
		for i := range n {
			all := map[int]bool{}
			for j := range i {
				if rapid.Bool().Draw(t, "needs") {
					all[j] = true
					for _, k := range needs[j] {
						all[k] = true
					}
				}
			}
			fmt.Fprintf(&index, "%s:", path(i))
			for j := i - 1; j >= 0; j-- {
				if all[j] {
					needs[i] = append(needs[i], j)
					fmt.Fprintf(&index, " %s", path(j))
				}
			}
			index.WriteByte('\n')
		}
		var names []string
		for _, i := range rapid.SliceOf(rapid.IntRange(0, n-1)).Draw(t, "wanted") {
			names = append(names, fmt.Sprintf("m_%d", i))
		}
		got, err := inOrder([]byte(index.String()), names)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			at := slices.Index(got, path(i))
			if at >= 0 && slices.Contains(got[at+1:], path(i)) {
				t.Fatalf("%s comes twice in %v", path(i), got)
			}
			for _, j := range needs[i] {
				if before := slices.Index(got, path(j)); at >= 0 && (before < 0 || before > at) {
					t.Fatalf("%s needs %s: %v", path(i), path(j), got)
				}
			}
		}
		for _, name := range names {
			if !slices.Contains(got, strings.ReplaceAll("d/"+name+".ko", "_", "-")) {
				t.Fatalf("%s is not in %v", name, got)
			}
		}
	})
}

// TestMeasure: a folder's disk has room for its files; a hole takes none.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	empty, err := measure(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a/b/file"), strings.Repeat("x", 100_000))
	full, err := measure(dir)
	if err != nil || full < empty+100_000 {
		t.Errorf("%d bytes, %v", full, err)
	}
	if err := sparse(filepath.Join(dir, "hole"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if got, err := measure(dir); err != nil || got > full+1<<20 {
		t.Errorf("with a hole: %d bytes, %v", got, err)
	}
	if _, err := measure(filepath.Join(dir, "nope")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "b/x"), "")
	write(t, filepath.Join(dir, "a"), "")
	var got []string
	visit := func(path string, _ os.FileInfo) error { got = append(got, path); return nil }
	if err := walk(dir, visit); err != nil || !slices.Equal(got, []string{".", "a", "b", "b/x"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestOldImagesAreRemoved(t *testing.T) {
	cache, now := t.TempDir(), time.Now()
	for name, age := range map[string]time.Duration{imagesCache + "-new": 0, imagesCache + "-old": 2 * staleImage, "other-old": 2 * staleImage} {
		dir := filepath.Join(cache, name)
		write(t, filepath.Join(dir, "disk.img"), "")
		if err := os.Chtimes(dir, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeStale(cache, now.Add(-staleImage)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if want := []string{filepath.Join(cache, imagesCache+"-new"), filepath.Join(cache, "other-old")}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOne(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "boot/vmlinuz-6"), "")
	if got, err := one(dir, "boot/vmlinuz-*"); err != nil || got != filepath.Join(dir, "boot/vmlinuz-6") {
		t.Errorf("%s, %v", got, err)
	}
	write(t, filepath.Join(dir, "boot/vmlinuz-7"), "")
	for _, pattern := range []string{"boot/vmlinuz-*", "boot/initrd-*", "["} {
		if got, err := one(dir, pattern); err == nil {
			t.Errorf("%s: %s", pattern, got)
		}
	}
}

func TestCertificatesAreBundled(t *testing.T) {
	tree := t.TempDir()
	write(t, filepath.Join(tree, "usr/share/ca-certificates/mozilla/B.crt"), "two\n")
	write(t, filepath.Join(tree, "usr/share/ca-certificates/mozilla/A.crt"), "one\n")
	write(t, filepath.Join(tree, "usr/share/ca-certificates/mozilla/README"), "no\n")
	if err := bundleCertificates(tree); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(tree, "etc/ssl/certs/ca-certificates.crt")); err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestInitramfs reads an initramfs back.
func TestInitramfs(t *testing.T) {
	dir := t.TempDir()
	agent, module := filepath.Join(dir, "agent"), filepath.Join(dir, "00-virtio_blk.ko")
	write(t, agent, "program")
	write(t, module, "code")
	var b strings.Builder
	w := cpio.NewWriter(&b)
	if err := errors.Join(writeInitramfs(w, agent, []string{module}), w.Close()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := cpio.NewReader(strings.NewReader(b.String())); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%v %s %s", h.FileInfo().Mode(), h.Name, text))
	}
	want := []string{"drwxr-xr-x dev ", "drwxr-xr-x root ", "drwxr-xr-x modules ", "-rwxr-xr-x init program", "-rw-r--r-- modules/00-virtio_blk.ko code"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := writeInitramfs(cpio.NewWriter(io.Discard), filepath.Join(dir, "nope"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no agent: %v", err)
	}
}
