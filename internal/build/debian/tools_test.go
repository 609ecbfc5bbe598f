package debian

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// fakeTree makes a tree whose loader is a shell script.
func fakeTree(t *testing.T, loader string, programs ...string) string {
	t.Helper()
	tree := t.TempDir()
	write := func(path, content string) {
		full := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(loaderPath, "#!/bin/sh\n"+loader)
	for _, p := range programs {
		write(p, "")
	}
	return tree
}

func TestCommandUsesTheTree(t *testing.T) {
	tree := fakeTree(t, "", "usr/sbin/mkfs.ext4", "usr/bin/qemu-system-x86_64")
	cmd, err := Command(t.Context(), tree, "mkfs.ext4", "-q", "/disk")
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Path != filepath.Join(tree, loaderPath) || cmd.Args[1] != "--library-path" {
		t.Errorf("args %q", cmd.Args)
	}
	if got := cmd.Args[3:]; !slices.Equal(got, []string{filepath.Join(tree, "usr/sbin/mkfs.ext4"), "-q", "/disk"}) {
		t.Errorf("args %q", got)
	}
	if !slices.Contains(cmd.Env, "MKE2FS_CONFIG="+filepath.Join(tree, "etc/mke2fs.conf")) {
		t.Error("mkfs.ext4 would read this machine's mke2fs.conf")
	}
	qemu, err := Command(t.Context(), tree, "qemu-system-x86_64")
	if err != nil || !slices.Contains(qemu.Args, filepath.Join(tree, "usr/share/qemu")) {
		t.Errorf("QEMU would look for its firmware elsewhere: %q, %v", qemu.Args, err)
	}
}

func TestCommandThatIsNotThere(t *testing.T) {
	if _, err := Command(t.Context(), fakeTree(t, ""), "mkfs.btrfs"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
	if err := Run(t.Context(), fakeTree(t, ""), "mkfs.btrfs"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
}

func TestRun(t *testing.T) {
	tree := fakeTree(t, `cat > "$5"; echo "it said this" >&2; test "$4" = ok`, "usr/bin/tool")
	out := filepath.Join(t.TempDir(), "out")
	if err := RunInput(t.Context(), strings.NewReader("stdin"), tree, "tool", "ok", out); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(out); err != nil || string(data) != "stdin" {
		t.Errorf("%q, %v", data, err)
	}
	err := Run(t.Context(), tree, "tool", "bad", out)
	if err == nil || !strings.Contains(err.Error(), "tool: ") || !strings.Contains(err.Error(), "it said this") {
		t.Errorf("err = %v", err)
	}
}

func TestTail(t *testing.T) {
	var log tail
	for range 1000 {
		_, _ = log.Write([]byte("a line of text\n"))
	}
	_, _ = log.Write([]byte("the last\n"))
	s := log.String()
	if len(s) > tailSize || !strings.HasPrefix(s, "a line") || !strings.HasSuffix(s, "\nthe last") {
		t.Errorf("%d bytes, from %q to %q", len(s), s[:20], s[len(s)-20:])
	}
}
