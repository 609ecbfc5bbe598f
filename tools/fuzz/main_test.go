package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go":          "package a\n\nfunc FuzzRoot(f *testing.F) {}\n",
		"a/b/x_test.go":      "package b\n\nfunc FuzzOne(f *testing.F) {}\n\n// func FuzzNot(\nfunc FuzzTwo(f *testing.F) {\n\tfunc() {}()\n}\n",
		"a/b/x.go":           "package b\n\nfunc FuzzCode(f int) {}\n",
		"a/b/x_host_test.go": "package b\n\nfunc FuzzHost(f *testing.F) {}\n",
		"a/b/y_test.go":      "package b\n\nfunc TestFuzz(t *testing.T) {}\nfunc (x) FuzzMethod(f *testing.F) {}\nfunc Fuzz(f int) {}\n",
		".git/x_test.go":     "package g\n\nfunc FuzzHidden(f *testing.F) {}\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	got, err := find()
	if err != nil {
		t.Fatal(err)
	}
	want := []target{{"./a/b", "FuzzOne"}, {"./a/b", "FuzzTwo"}, {"./.", "FuzzRoot"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := run(0); err == nil || !strings.Contains(err.Error(), "found 3 fuzz targets") {
		t.Errorf("too few targets: %v", err)
	}
}

// TestThisModuleHasTargets: enough of them are found in the code base itself.
func TestThisModuleHasTargets(t *testing.T) {
	t.Chdir("../..")
	got, err := find()
	if err != nil || len(got) < least {
		t.Errorf("found %v, %v", got, err)
	}
	if !slices.ContainsFunc(got, func(x target) bool { return x.pkg == "./internal/guest/client" && x.name == "FuzzStream" }) {
		t.Errorf("one is missing in %v", got)
	}
}

func TestTheEndOfItsTimeIsNoFinding(t *testing.T) {
	const head = "fuzz: elapsed: 3s, execs: 30039 (0/sec), new interesting: 83 (total: 85)\n--- FAIL: FuzzEntry (3.08s)\n"
	for out, want := range map[string]bool{
		head + "    context deadline exceeded\nFAIL\nexit status 1\n": true,
		head + "    --- FAIL: FuzzEntry (0.00s)\n        entry_test.go:9: context deadline exceeded\n    \n    Failing input written to testdata/fuzz/FuzzEntry/1\n": false,
		head + "    fuzzing process hung or terminated unexpectedly while minimizing: EOF\n    Failing input written to testdata/fuzz/FuzzEntry/1\n":                 false,
		head + "    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzEntry/1\n":                                                             false,
		"# wrenn.dev/wrenn/tools/fuzz\ncontext deadline exceeded\n":                                                                                                  false,
	} {
		if got := lateStop([]byte(out)); got != want {
			t.Errorf("%v for %q", got, out)
		}
	}
}
