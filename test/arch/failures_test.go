package arch

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	_ "wrenn.dev/wrenn/internal/assembly" // every package that has points
	"wrenn.dev/wrenn/internal/failpoint"
	_ "wrenn.dev/wrenn/internal/hostagent"
)

const failures = "../../docs/failures.md"

var (
	pointCell = regexp.MustCompile("(?m)^\\| `([a-z-]+\\.[a-z-]+)` \\|")
	testName  = regexp.MustCompile("`(Test[A-Z][A-Za-z]+)`")
)

// TestEveryFailpointIsInTheTable, and nothing else is: docs/failures.md says of each step what a crash there leaves.
func TestEveryFailpointIsInTheTable(t *testing.T) {
	text, err := os.ReadFile(failures)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, m := range pointCell.FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, m[1])
	}
	slices.Sort(rows)
	points := failpoint.All()
	if len(points) < 50 {
		t.Fatalf("%d failpoints: the test does not see them", len(points))
	}
	for _, point := range points {
		if !slices.Contains(rows, point) {
			t.Errorf("%s is not in %s", point, failures)
		}
	}
	for i, row := range rows {
		if !slices.Contains(points, row) {
			t.Errorf("%s is in %s, and no step", row, failures)
		}
		if i > 0 && rows[i-1] == row {
			t.Errorf("%s is in %s twice", row, failures)
		}
	}
}

// TestTheTestsOfTheTableAreThere: what is said to be proved is proved by a test of that name.
func TestTheTestsOfTheTableAreThere(t *testing.T) {
	text, err := os.ReadFile(failures)
	if err != nil {
		t.Fatal(err)
	}
	names := testName.FindAllStringSubmatch(string(text), -1)
	if len(names) < 5 {
		t.Fatalf("%d tests: the test does not see them", len(names))
	}
	for _, m := range names {
		out, err := exec.Command("git", "-C", "../..", "grep", "--untracked", "-l", "^func "+m[1]+"(t ", "--", "*_test.go").Output()
		if err != nil || strings.TrimSpace(string(out)) == "" {
			t.Errorf("%s names %s, which is not there", failures, m[1])
		}
	}
}
