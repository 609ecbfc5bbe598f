package suite

import (
	"fmt"
	"regexp"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Item is what one run of a test binary is to do: a package's host tests, or one of them.
type Item struct {
	Package Package
	Tests   []string // of top level, at least one
	subtest string   // what selects subtests: "" or "/…", as in go test's -run

	split bool
}

// Label names the item to people.
func (i Item) Label() string {
	if i.split {
		return i.Package.Name + " " + i.Tests[0]
	}
	return i.Package.Name
}

// RunPattern is the value of the test binary's -test.run.
func (i Item) RunPattern() string {
	quoted := make([]string, len(i.Tests))
	for n, name := range i.Tests {
		quoted[n] = regexp.QuoteMeta(name)
	}
	return "^(" + strings.Join(quoted, "|") + ")$" + i.subtest
}

// Select makes items of packages: one each, or one each test for those that split names by import path. Run chooses tests as
// go test's -run does; empty chooses all. A package with none that match is left out.
func Select(packages []Package, split map[string]bool, run string) ([]Item, error) {
	top, subtest := run, ""
	if i := strings.Index(run, "/"); i >= 0 {
		top, subtest = run[:i], run[i:]
	}
	re, err := regexp.Compile(top)
	if err != nil {
		return nil, errs.Field("--run", fmt.Sprintf("%q: %v", run, err), "give a pattern as for go test's -run")
	}
	var items []Item
	for _, p := range packages {
		var chosen []string
		for _, name := range p.Tests {
			if re.MatchString(name) {
				chosen = append(chosen, name)
			}
		}
		switch {
		case len(chosen) == 0:
		case split[p.ImportPath]:
			for _, name := range chosen {
				items = append(items, Item{Package: p, Tests: []string{name}, subtest: subtest, split: true})
			}
		default:
			items = append(items, Item{Package: p, Tests: chosen, subtest: subtest})
		}
	}
	return items, nil
}
