package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/test/kvmhost/machine"
	"wrenn.dev/wrenn/test/kvmhost/schedule"
	"wrenn.dev/wrenn/test/kvmhost/standing"
	"wrenn.dev/wrenn/test/kvmhost/suite"
)

func TestSummary(t *testing.T) {
	item := func(name string) suite.Item {
		return suite.Item{Package: suite.Package{Name: name}, Tests: []string{"TestA", "TestB"}}
	}
	good := outcome{Item: item("good"), Result: suite.Verdict{Passed: 2}, Time: 1500 * time.Millisecond}
	bad := outcome{Item: item("bad"), Result: suite.Verdict{Passed: 1, Failed: 1, Problems: []string{"TestB failed"}}, Host: 1}
	again := outcome{Item: item("again"), Result: suite.Verdict{Passed: 2}, Again: 1}
	lost := outcome{Item: item("lost"), Result: suite.Verdict{Passed: 2}, Err: errors.New("the machine died")}
	for _, c := range []struct {
		list []outcome
		code error
		says []string
	}{
		{[]outcome{good}, nil, []string{"ok      2/2    1.5 s  1     good\n", "in 3 s\n2 passed, 0 failed\n"}},
		{[]outcome{good, bad}, exitCode(exitTestsFailed), []string{"FAIL    1/2    0.0 s  2     bad\n", "FAIL bad: TestB failed\n", "3 passed, 1 failed\n"}},
		{[]outcome{again}, nil, []string{"(RUN AGAIN 1 times", "An emulated machine was lost", "2 passed, 0 failed\n"}},
		{[]outcome{lost}, exitCode(exitTestsFailed), []string{"FAIL    0/2", "FAIL lost: the machine died\n", "0 passed, 2 failed\n"}},
	} {
		var out strings.Builder
		if err := summarize(&out, c.list, 3*time.Second); !errors.Is(err, c.code) {
			t.Errorf("summarize = %v, want %v", err, c.code)
		}
		for _, text := range c.says {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%q is not in\n%s", text, &out)
			}
		}
	}
}

// TestLabels: whole lines alone reach the output, each with its label, wherever the writes are cut.
func TestLabels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out bytes.Buffer
		l := &labeller{out: &out}
		text := map[string]string{}
		writers := map[string]*labelled{"a": l.label("a"), "b": l.label("b")}
		pieces := rapid.SampledFrom([]string{"x", "one\n", "two\nthree\nfo", "\n", "\n\n", "ur", strings.Repeat("long", 100)})
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			name, piece := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "writer"), pieces.Draw(t, "piece")
			text[name] += piece
			if n, err := writers[name].Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		got := map[string]string{}
		for name, w := range writers {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if text[name] != "" && !strings.HasSuffix(text[name], "\n") {
				text[name] += "\n"
			}
		}
		for line := range strings.Lines(out.String()) {
			label, rest, ok := strings.Cut(line, "] ")
			if !ok {
				t.Fatalf("a line without a label: %q", line)
			}
			got[label[1:]] += rest
		}
		if got["a"] != text["a"] || got["b"] != text["b"] {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

// TestALineWithoutEndIsNotKept: what is kept back is bounded.
func TestALineWithoutEndIsNotKept(t *testing.T) {
	var out bytes.Buffer
	w := (&labeller{out: &out}).label("a")
	for range 100 {
		if _, err := w.Write(bytes.Repeat([]byte("x"), maxPartial/2)); err != nil {
			t.Fatal(err)
		}
		if len(w.partial) > maxPartial {
			t.Fatalf("%d bytes are kept", len(w.partial))
		}
	}
	if got := bytes.Count(out.Bytes(), []byte("x")); got < 99*maxPartial/2 {
		t.Errorf("%d bytes came out", got)
	}
}

func TestList(t *testing.T) {
	var out strings.Builder
	if err := printList(&out, nil); err != nil || out.String() != "no host is up\n" {
		t.Errorf("%q, %v", &out, err)
	}
	out.Reset()
	err := printList(&out, []standing.Info{{Name: "default", Pid: 7, Notes: "memory 4G"}})
	if err != nil || out.String() != "NAME     PID  WITH\ndefault  7    memory 4G\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestLostOr(t *testing.T) {
	own := errors.New("own")
	if got := lostOr(own); got != own || errors.Is(got, schedule.ErrLost) {
		t.Errorf("got %v", got)
	}
	lost := &machine.Lost{}
	if got := lostOr(lost); !errors.Is(got, schedule.ErrLost) || !errors.As(got, &lost) {
		t.Errorf("got %v", got)
	}
}

// archive is a tar of entries: a name that ends in / is a folder; the text is a file's content or a link's target.
func archive(t *testing.T, entries ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(e[1], "-> "); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		} else if strings.HasSuffix(e[0], "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e[1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t *testing.T, dir string, data []byte) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return untar(root, bytes.NewReader(data))
}

func TestUntar(t *testing.T) {
	dir := t.TempDir()
	if err := unpack(t, dir, archive(t, [2]string{"a/", ""}, [2]string{"a/b/", ""}, [2]string{"a/b/x", "hello"}, [2]string{"l", "-> /etc"}, [2]string{"y", ""})); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/b/x")); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "l")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link was made: %v", err)
	}
	if err := unpack(t, dir, archive(t, [2]string{"x", strings.Repeat("x", 2000)})[:1000]); err == nil {
		t.Error("half an archive is no error")
	}
}

// TestUntarStaysInside: whatever names the archive has, nothing is written elsewhere.
func TestUntarStaysInside(t *testing.T) {
	for _, name := range []string{"../x", "/x", "a/../../x", "../y/", "link/x"} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "root")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(parent, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := unpack(t, dir, archive(t, [2]string{name, ""})); err == nil {
			t.Errorf("%s: no error", name)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%s: %v, %v", name, entries, err)
		}
	}
}
