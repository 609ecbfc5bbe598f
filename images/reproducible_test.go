//go:build imagetest

package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/build/debian"
)

// TestSameInputsSameImages makes every slow part twice, from nothing but the tool tree, and compares the results.
func TestSameInputsSameImages(t *testing.T) {
	tools, err := debian.ToolTree(t.Context(), testWriter{t})
	check(t, err)
	var root, kernel [2]string
	var packages [2]string
	var g errgroup.Group
	g.SetLimit(2)
	dir := t.TempDir()
	for i := range 2 {
		b := testBuilder(t)
		where := filepath.Join(dir, fmt.Sprint(i))
		g.Go(func() (err error) {
			at := filepath.Join(where, "packages")
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			if err := b.install(t.Context(), at); err != nil {
				return err
			}
			root[i] = filepath.Join(where, "rootfs")
			packages[i], err = b.rootfs(t.Context(), at, root[i])
			return err
		})
		g.Go(func() error {
			kernel[i] = filepath.Join(where, "kernel")
			if err := os.MkdirAll(kernel[i], 0o755); err != nil {
				return err
			}
			if err := b.makeKernel(t.Context(), kernel[i]); err != nil {
				return err
			}
			return b.initramfs(filepath.Join(kernel[i], "initramfs"), kernelParts{dir: kernel[i]})
		})
	}
	check(t, g.Wait())
	if packages[0] != packages[1] {
		t.Fatalf("Debian published packages meanwhile: the two images are of different ones; run the test again")
	}
	same(t, root[0], root[1])
	for _, name := range []string{"vmlinux", "version", "modules.ext4", "initramfs"} {
		same(t, filepath.Join(kernel[0], name), filepath.Join(kernel[1], name))
	}
	for _, image := range []string{root[0], filepath.Join(kernel[0], "modules.ext4")} {
		if err := debian.Run(t.Context(), tools, "e2fsck", "-f", "-n", image); err != nil {
			t.Errorf("%s: %v", filepath.Base(image), err)
		}
	}
}

// testBuilder has stand-ins for the binaries: what they hold is not the matter here.
func testBuilder(t *testing.T) *builder {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "binary")
	check(t, os.WriteFile(binary, []byte("a program"), 0o755))
	return &builder{recipe: base, envd: binary, init: binary, ramdisk: binary, steps: &steps{out: testWriter{t}}, debianLog: io.Discard}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// same fails the test when two files differ, and says where they begin to.
func same(t *testing.T, one, two string) {
	t.Helper()
	if a, b := digest(t, one), digest(t, two); a != b {
		t.Errorf("%s differs: sha256 %s and %s", filepath.Base(one), a, b)
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	check(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}
