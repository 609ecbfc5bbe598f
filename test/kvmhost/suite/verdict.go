package suite

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Verdict is how an item ended.
type Verdict struct {
	Passed, Failed int      // tests of top level; what went wrong beside any test counts as one that failed
	Problems       []string // why it failed, a line each; empty when it passed
}

// OK says whether all is well.
func (v Verdict) OK() bool { return len(v.Problems) == 0 }

// resultLine is what package testing prints when a test has ended. Subtests are indented.
var resultLine = regexp.MustCompile(`^(\s*)--- (PASS|FAIL|SKIP): (\S+) \(`)

// skipMark is looked for anywhere in a line: what a test wrote without an end of line stands before it.
var skipMark = regexp.MustCompile(`--- SKIP: (\S+) \(`)

// maxLine bounds what is looked at of a line, in bytes.
const maxLine = 4096

// Judge reads the output of a test binary as it comes, which must be run with -test.v. It is a writer, safe for concurrent use.
type Judge struct {
	mu      sync.Mutex
	partial []byte
	ended   map[string]string // tests of top level to their result
	skipped []string
}

// Write never fails.
func (j *Judge) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if room := maxLine - len(j.partial); room > 0 {
			j.partial = append(j.partial, line[:min(len(line), room)]...)
		}
		rest = after
		if whole {
			j.line(string(j.partial))
			j.partial = j.partial[:0]
		}
	}
	return len(p), nil
}

func (j *Judge) line(s string) {
	for _, m := range skipMark.FindAllStringSubmatch(s, -1) {
		j.skipped = append(j.skipped, m[1])
	}
	m := resultLine.FindStringSubmatch(s)
	if m == nil {
		return
	}
	indent, result, name := m[1], m[2], m[3]
	if indent == "" && !strings.Contains(name, "/") {
		if j.ended == nil {
			j.ended = make(map[string]string)
		}
		j.ended[name] = result
	}
}

// Verdict judges an item by its output and the exit code of its binary. Each test must have been seen to pass: one that was
// skipped, in whole or in part, or of which nothing was heard, has failed.
func (j *Judge) Verdict(item Item, code int) Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	var v Verdict
	for _, name := range item.Tests {
		switch j.ended[name] {
		case "PASS":
			if skipped := j.skippedIn(name); len(skipped) > 0 {
				v.fail("%s is skipped: a host test must run or fail", strings.Join(skipped, ", "))
			} else {
				v.Passed++
			}
		case "FAIL":
			v.fail("%s failed", name)
		case "SKIP":
			v.fail("%s is skipped: a host test must run or fail", name)
		default:
			v.fail("%s did not come to its end", name)
		}
	}
	if code != 0 && v.Failed == 0 {
		v.fail("the test binary ended with exit code %d", code)
	}
	return v
}

func (v *Verdict) fail(format string, args ...any) {
	v.Failed++
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

func (j *Judge) skippedIn(test string) []string {
	var in []string
	for _, name := range j.skipped {
		if strings.HasPrefix(name, test+"/") {
			in = append(in, name)
		}
	}
	slices.Sort(in)
	return in
}

// Broken is the verdict on an item whose end is unknown.
func Broken(item Item, why error) Verdict {
	return Verdict{Failed: len(item.Tests), Problems: []string{why.Error()}}
}
