package suite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

// module makes a module of files and works in it.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	root := t.TempDir()
	files["go.mod"] = "module example.org/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("GOWORK", "off")
}

const tagged = "//go:build hosttest\n\npackage x\n\nimport \"testing\"\n\n"

func test(name string) string { return fmt.Sprintf("func %s(t *testing.T) {}\n", name) }

func example(t *testing.T) {
	module(t, map[string]string{
		"a/x.go":             "package x\n",
		"a/x_test.go":        "package x\n\nimport \"testing\"\n\n" + test("TestUnit"),
		"a/one_host_test.go": tagged + test("TestZ") + test("TestA") + "func helper(t *testing.T) {}\nfunc TestMain(m *testing.M) {}\n",
		"a/two_host_test.go": strings.Replace(tagged, "package x", "package x_test", 1) + test("TestB"),
		"b/x_test.go":        tagged + test("TestOnlyHere"),
		"c/x.go":             "package x\n",
		"d/x.go":             "package x\n",
		"d/help_test.go":     tagged + "var _ testing.T\n",
		"e/x_test.go":        "//go:build !hosttest\n\npackage x\n\nimport \"testing\"\n\n" + test("TestNever"),
		"f/testdata/x.go":    "package broken !\n",
	})
}

func TestDiscover(t *testing.T) {
	example(t)
	got, err := Discover(t.Context(), "./...")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range got {
		if !filepath.IsAbs(p.Dir) || p.ImportPath != "example.org/m/"+p.Name {
			t.Errorf("%+v", p)
		}
		lines = append(lines, p.Name+": "+strings.Join(p.Tests, " "))
	}
	if diff := cmp.Diff([]string{"a: TestZ TestA TestB", "b: TestOnlyHere"}, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := Discover(t.Context(), "./b", "./c"); err != nil || len(got) != 1 || got[0].Name != "b" {
		t.Errorf("two of them: %v, %v", got, err)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	example(t)
	for _, pattern := range []string{"./nope", "example.org/other", "./nope/..."} {
		got, err := Discover(t.Context(), pattern)
		if err == nil && len(got) > 0 {
			t.Errorf("%s: %v", pattern, got)
		}
		if err == nil && !strings.HasSuffix(pattern, "...") {
			t.Errorf("%s: no error", pattern)
		}
	}
}

func TestWhatIsATest(t *testing.T) {
	for line, want := range map[string]bool{
		"func TestA(t *testing.T) {}": true, "func Test(t *testing.T) {}": true, "func TestÄ(*testing.T) {}": true, "func Test_a(t *testing.T) {}": true,
		"func Testa(t *testing.T) {}": false, "func TestA(t *testing.B) {}": false, "func TestA() {}": false, "func TestA(t testing.T) {}": false,
		"func (x) TestA(t *testing.T) {}": false, "func TestA(a, b *testing.T) {}": false, "func TestA(t *testing.T, n int) {}": false,
		"func TestMain(m *testing.M) {}": false, "func BenchmarkA(t *testing.T) {}": false, "func FuzzA(f *testing.F) {}": false, "var TestA = 1": false,
		"func TestA(t *int) {}": false,
	} {
		names, err := testsIn("x_test.go", "package x\n\n"+line+"\n")
		if err != nil || (len(names) == 1) != want {
			t.Errorf("%s: %v, %v", line, names, err)
		}
	}
	if _, err := testsIn("x_test.go", "package"); err == nil {
		t.Error("a file that does not parse is no error")
	}
}

func TestSelect(t *testing.T) {
	packages := []Package{{ImportPath: "m/a", Name: "a", Tests: []string{"TestOne", "TestTwo"}}, {ImportPath: "m/b", Name: "b", Tests: []string{"TestTwo", "TestX"}}}
	split := map[string]bool{"m/b": true}
	for run, want := range map[string][]string{
		"":              {"a ^(TestOne|TestTwo)$", "b TestTwo ^(TestTwo)$", "b TestX ^(TestX)$"},
		"Two":           {"a ^(TestTwo)$", "b TestTwo ^(TestTwo)$"},
		"^TestOne$":     {"a ^(TestOne)$"},
		"Two/sub=a/b":   {"a ^(TestTwo)$/sub=a/b", "b TestTwo ^(TestTwo)$/sub=a/b"},
		"Nothing":       nil,
		"TestX|TestOne": {"a ^(TestOne)$", "b TestX ^(TestX)$"},
	} {
		items, err := Select(packages, split, run)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range items {
			got = append(got, i.Label()+" "+i.RunPattern())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", run, got, want)
		}
	}
	if _, err := Select(packages, nil, "("); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("a bad pattern: %v", err)
	}
}
