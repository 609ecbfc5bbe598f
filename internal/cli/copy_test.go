package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cli/transfer"
)

// made is a sandbox's id.
func made(t *testing.T, flags ...string) string {
	t.Helper()
	code, out, errOut := wrenn(t, "", append([]string{"create"}, flags...)...)
	if code != 0 || errOut != "" {
		t.Fatal(code, out, errOut)
	}
	return strings.TrimSpace(out)
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, path string, want []byte, mode os.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	st, serr := os.Stat(path)
	if err != nil || serr != nil || !bytes.Equal(got, want) || st.Mode() != mode {
		t.Errorf("%s has %d bytes, %v, %v, %v; want %d with mode %v", path, len(got), err, st, serr, len(want), mode)
	}
}

// TestCopyBothWays takes a folder to a guest and back.
func TestCopyBothWays(t *testing.T) {
	_, g := serveFiles(t)
	id, dir := made(t), t.TempDir()
	large := make([]byte, 5<<20+1)
	_, _ = rand.Read(large)
	write(t, filepath.Join(dir, "in", "large"), large, 0o644)
	write(t, filepath.Join(dir, "in", "a", "b", "run.sh"), []byte("#!/bin/sh\n"), 0o755)
	write(t, filepath.Join(dir, "in", "a", "empty ü"), nil, 0o600)
	if err := os.Symlink("large", filepath.Join(dir, "in", "link")); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := wrenn(t, "", "cp", "--json", filepath.Join(dir, "in"), id+":")
	var r transfer.Result
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.Files != 3 || r.Folders != 3 || r.Bytes != int64(len(large))+10 ||
		len(r.Skipped) != 1 || !strings.Contains(errOut, "a symbolic link") {
		t.Fatal(code, out, errOut, err)
	}
	same(t, filepath.Join(g.Home, "in", "large"), large, 0o644)
	same(t, filepath.Join(g.Home, "in", "a", "b", "run.sh"), []byte("#!/bin/sh\n"), 0o755)
	if err := unix.Mkfifo(filepath.Join(g.Home, "in", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := wrenn(t, "", "cp", "--limit", "1G", id+":in", filepath.Join(dir, "back")); code != 0 || !strings.Contains(errOut, "in/pipe") {
		t.Fatal(code, errOut)
	}
	same(t, filepath.Join(dir, "back", "large"), large, 0o644)
	same(t, filepath.Join(dir, "back", "a", "b", "run.sh"), []byte("#!/bin/sh\n"), 0o755)
	same(t, filepath.Join(dir, "back", "a", "empty ü"), nil, 0o600)
}

// TestCopySingleFiles has each way of naming one.
func TestCopySingleFiles(t *testing.T) {
	_, g := serveFiles(t)
	id, dir := made(t), t.TempDir()
	write(t, filepath.Join(dir, "f"), []byte("text"), 0o644)
	if err := os.MkdirAll(filepath.Join(g.Home, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	for to, lands := range map[string]string{"there": "there/f", "new/g": "new/g", "other/": "other/f", g.Home + "/abs": "abs", "there/g": "there/g"} {
		if code, out, errOut := wrenn(t, "", "cp", filepath.Join(dir, "f"), id+":"+to); code != 0 || out+errOut != "" {
			t.Errorf("%s: %d, %q, %q", to, code, out, errOut)
		}
		same(t, filepath.Join(g.Home, lands), []byte("text"), 0o644)
	}
	if code, out, errOut := wrenn(t, "", "cp", id+":there/f", "-"); code != 0 || out != "text" {
		t.Error(code, out, errOut)
	}
	if code, _, errOut := wrenn(t, "from stdin", "cp", "-", id+":stdin"); code != 0 {
		t.Error(code, errOut)
	}
	same(t, filepath.Join(g.Home, "stdin"), []byte("from stdin"), 0o644)
	for what, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"both": {[]string{id + ":a", id + ":b"}, exitUsage, "cp - B:FILE"}, "neither": {[]string{"a", "b"}, exitUsage, "ID:PATH"},
		"one": {[]string{"a"}, exitUsage, "SOURCE"}, "missing there": {[]string{id + ":none", dir}, exitFailed, "does not exist"},
		"missing here": {[]string{dir + "/none", id + ":x"}, exitFailed, "no such file"}, "no sandbox": {[]string{"cl-0123456789abcdefghij:x", dir}, exitFailed, "not found"},
		"too much": {[]string{"--limit", "1", id + ":huge", dir}, exitFailed, "--limit takes more"}, "no limit": {[]string{"--limit", "x", id + ":f", dir}, exitUsage, "--limit"},
		"user": {[]string{"--user", "none-such", id + ":there/f", dir}, exitUsage, "--user"}, "JSON": {[]string{"--json", id + ":there/f", "-"}, exitUsage, "--json"},
		"not a file": {[]string{id + ":/dev/null", dir}, exitUsage, "neither"},
	} {
		if what == "too much" {
			write(t, filepath.Join(g.Home, "huge"), make([]byte, 2<<20), 0o644)
		}
		code, _, errOut := wrenn(t, "", append([]string{"cp"}, c.args...)...)
		if code != c.code || what != "one" && !strings.Contains(errOut, c.says) {
			t.Errorf("%s: %d, %q", what, code, errOut)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// TestMeter draws on one line and takes it away.
func TestMeter(t *testing.T) {
	var out bytes.Buffer
	m := &meter{w: &out}
	m.moved("a\x1b[2J", 3<<20, 12<<20)
	m.done()
	if got := out.String(); !strings.Contains(got, "3.0M") || !strings.Contains(got, " 25%") || strings.Count(got, "\x1b") != 2 || strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
	(*meter)(nil).done()
}
