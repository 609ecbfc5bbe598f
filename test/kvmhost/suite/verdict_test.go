package suite

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func item(tests ...string) Item { return Item{Package: Package{Name: "p"}, Tests: tests} }

func TestJudge(t *testing.T) {
	const skipped = "%s is skipped: a host test must run or fail"
	for name, c := range map[string]struct {
		tests  []string
		output string
		code   int
		want   Verdict
	}{
		"passed": {[]string{"TestA", "TestB"}, "=== RUN   TestA\n--- PASS: TestA (0.00s)\n--- PASS: TestB (1.00s)\nPASS\n", 0, Verdict{Passed: 2}},
		"failed": {[]string{"TestA", "TestB"}, "--- FAIL: TestA (0.00s)\n    a_test.go:1: no\n--- PASS: TestB (0.00s)\nFAIL\n", 1,
			Verdict{1, 1, []string{"TestA failed"}}},
		"failed, they say, but the code is 0": {[]string{"TestA"}, "--- FAIL: TestA (0.00s)\n", 0, Verdict{0, 1, []string{"TestA failed"}}},
		"skipped":                             {[]string{"TestA"}, "--- SKIP: TestA (0.00s)\nPASS\n", 0, Verdict{0, 1, []string{fmt.Sprintf(skipped, "TestA")}}},
		"skipped in part": {[]string{"TestA"}, "--- PASS: TestA (0.00s)\n    --- SKIP: TestA/z (0.00s)\n        --- SKIP: TestA/b/c (0.00s)\n", 0,
			Verdict{0, 1, []string{fmt.Sprintf(skipped, "TestA/b/c, TestA/z")}}},
		"skipped in part, after other output": {[]string{"TestA"}, "--- PASS: TestA (0.00s)\ntext    --- SKIP: TestA/z (0.00s)\n", 0,
			Verdict{0, 1, []string{fmt.Sprintf(skipped, "TestA/z")}}},
		"another's part is skipped": {[]string{"TestA"}, "--- PASS: TestA (0.00s)\n    --- SKIP: TestAB/z (0.00s)\n", 0, Verdict{Passed: 1}},
		"never ended":               {[]string{"TestA", "TestB"}, "--- PASS: TestA (0.00s)\n=== RUN   TestB\n", 2, Verdict{1, 1, []string{"TestB did not come to its end"}}},
		"nothing ran":               {[]string{"TestA"}, "testing: warning: no tests to run\nPASS\n", 0, Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"no output":                 {[]string{"TestA"}, "", 0, Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"a panic":                   {[]string{"TestA"}, "--- FAIL: TestA (0.00s)\npanic: oh [recovered]\n\tpanic: oh\n", 2, Verdict{0, 1, []string{"TestA failed"}}},
		"out of time": {[]string{"TestA"}, "panic: test timed out after 1s\n\trunning tests:\n\t\tTestA (1s)\n", 2,
			Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"fails beside the tests": {[]string{"TestA"}, "--- PASS: TestA (0.00s)\ngoleak: Errors on successful test run\n", 1,
			Verdict{1, 1, []string{"the test binary ended with exit code 1"}}},
		"an indented result":         {[]string{"TestA"}, "    --- PASS: TestA (0.00s)\n--- PASS: TestA/x (0.00s)\n", 0, Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"a result within a line":     {[]string{"TestA"}, "x--- PASS: TestA (0.00s)\n", 0, Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"a result without its end":   {[]string{"TestA"}, "--- PASS: TestA (0.00s)", 0, Verdict{0, 1, []string{"TestA did not come to its end"}}},
		"twice, the second time bad": {[]string{"TestA"}, "--- PASS: TestA (0.00s)\n--- FAIL: TestA (0.00s)\n", 1, Verdict{0, 1, []string{"TestA failed"}}},
		"a long line":                {[]string{"TestA"}, strings.Repeat("x", 10*maxLine) + "\n--- PASS: TestA (0.00s)\n", 0, Verdict{Passed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			j := new(Judge)
			fmt.Fprint(j, c.output)
			got := j.Verdict(item(c.tests...), c.code)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.OK() != (got.Failed == 0) {
				t.Errorf("OK is %v", got.OK())
			}
		})
	}
}

// TestPiecesDoNotMatter: the verdict is the same wherever the output is cut, and what is kept of it is bounded.
func TestPiecesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.SampledFrom([]string{"--- PASS: TestA (0.00s)\n", "--- FAIL: TestB (0.00s)\n", "    --- SKIP: TestA/x (0.00s)\n",
			"--- SKIP: TestB (0.00s)\n", "--- PASS: TestB (0.00s)\n", "\n", "text\n", strings.Repeat("long", maxLine) + "\n", "no end",
			strings.Repeat(" ", maxLine) + "--- PASS: TestA (0.00s)\n", "\xff\x00\r\n"})).Draw(t, "lines")
		output, code := strings.Join(lines, ""), rapid.IntRange(0, 2).Draw(t, "code")
		whole, cut := new(Judge), new(Judge)
		fmt.Fprint(whole, output)
		for rest := output; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 3*maxLine)).Draw(t, "piece")
			if m, err := cut.Write([]byte(rest[:n])); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			rest = rest[n:]
			if len(cut.partial) > maxLine {
				t.Fatalf("%d bytes are kept", len(cut.partial))
			}
		}
		tests := item("TestA", "TestB")
		want, got := whole.Verdict(tests, code), cut.Verdict(tests, code)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-whole +cut):\n%s", diff)
		}
		if got.OK() && (got.Passed != 2 || code != 0 || strings.Contains(output, "SKIP: TestA/x")) {
			t.Fatalf("%+v is taken for well", got)
		}
	})
}

func TestBroken(t *testing.T) {
	got := Broken(item("TestA", "TestB"), errors.New("the machine died"))
	if diff := cmp.Diff(Verdict{Failed: 2, Problems: []string{"the machine died"}}, got); diff != "" {
		t.Error(diff)
	}
}
