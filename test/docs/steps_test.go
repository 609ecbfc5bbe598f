// Package docs holds the documents to what is so: every curl that they show is run, in their order, against a server, and succeeds with an answer of
// the shape that they show.
package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// step is a command of a document, and the lines that it shows as its output.
type step struct {
	file    string
	line    int
	command string
	want    []string
	curl    bool
}

func (s step) String() string {
	return fmt.Sprintf("%s:%d: %s", filepath.Base(s.file), s.line, s.command)
}

var (
	isCurl = regexp.MustCompile(`(^|[\s(|])curl\s`)
	// isPlain is an assignment that runs nothing.
	isPlain = regexp.MustCompile("^[a-z_]+=[^$`]*(\\$[A-Za-z_]+[^$`]*)*$")
)

// elsewhere are documents whose commands another test runs, by the folder that it is in.
var elsewhere = map[string]string{"operations.md": "../systemd"} // as a whole, on a host that systemd runs

// documents are the repository's but those.
func documents(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	list = slices.DeleteFunc(list, func(file string) bool {
		folder, is := elsewhere[filepath.Base(file)]
		return is && runs(t, folder, filepath.Base(file))
	})
	return append(list, "../../README.md")
}

// runs says whether the tests in a folder name a document.
func runs(t *testing.T, folder, document string) bool {
	t.Helper()
	tests, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(tests, func(name string) bool { return strings.Contains(read(t, name), "docs/"+document) })
}

// steps are a document's commands that are run: those with a curl, and plain assignments, in blocks that are marked "console". They begin with "$ ",
// and go on after a backslash. A curl anywhere else in a block is an error: nobody would see that it does not work.
func steps(t *testing.T, file string) []step {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []step
	var block string // what kind of block we are in, "" for none
	var to *[]string // where a line of output goes
	lines := strings.Split(string(raw), "\n")
	for i := 0; i < len(lines); i++ {
		line, at := lines[i], i+1
		if kind, fence := strings.CutPrefix(line, "```"); fence {
			if block == "" {
				block = "a block of " + kind
			} else {
				block = ""
			}
			to = nil
			continue
		}
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case block == "a block of console" && isCommand:
			for strings.HasSuffix(command, "\\") && i+1 < len(lines) {
				i++
				command = strings.TrimSuffix(command, "\\") + "\n" + lines[i]
			}
			to = nil
			if curl := isCurl.MatchString(command); curl || isPlain.MatchString(command) {
				list = append(list, step{file: file, line: at, command: command, curl: curl})
				to = &list[len(list)-1].want
			}
		case block != "" && isCurl.MatchString(line):
			t.Errorf("%s:%d: a curl that is not run: write it as \"$ curl …\" in a block of console", file, at)
		case to != nil:
			*to = append(*to, line)
		}
	}
	return list
}

// fits says how what a document shows differs from what came, "" when it does not. JSON is compared as such, and otherwise line by line.
func fits(want, got []string) string {
	wanted, ok1 := values(want)
	came, ok2 := values(got)
	if ok1 && ok2 {
		return like("", wanted, came)
	}
	return like("", anys(want), anys(got))
}

// values are the JSON values that lines have, one after the other.
func values(lines []string) ([]any, bool) {
	list := []any{}
	for dec := json.NewDecoder(strings.NewReader(strings.Join(lines, "\n"))); dec.More(); {
		var v any
		if dec.Decode(&v) != nil {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}

func anys(lines []string) []any {
	list := make([]any, len(lines))
	for i, line := range lines {
		list[i] = strings.TrimRight(line, " ")
	}
	return list
}

// like compares two values: the same fields, as many items, texts that are the same but for what is left out as "…", numbers whichever they are.
func like(at string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			break
		}
		for name := range have {
			if _, shown := want[name]; !shown {
				return fmt.Sprintf("%s.%s is not shown", at, name)
			}
		}
		for name, value := range want {
			if _, there := have[name]; !there {
				return fmt.Sprintf("%s.%s did not come", at, name)
			}
			if problem := like(at+"."+name, value, have[name]); problem != "" {
				return problem
			}
		}
		return ""
	case []any:
		have, ok := got.([]any)
		if !ok || len(have) != len(want) {
			break
		}
		for i := range want {
			if problem := like(fmt.Sprintf("%s[%d]", at, i), want[i], have[i]); problem != "" {
				return problem
			}
		}
		return ""
	case string:
		have, ok := got.(string)
		if ok && regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".+")+"$").MatchString(have) {
			return ""
		}
	case float64:
		if _, ok := got.(float64); ok {
			return ""
		}
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s is %#v, shown is %#v", at, got, want)
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		want, got string
		fits      bool
	}{
		{"running", "running", true}, {"running", "paused", false}, {"cl-…", "cl-123", true}, {"cl-…", "cl-", false}, {"a\nb", "a", false},
		{"", "a", false},
		{`{"a": "…", "n": 1}`, `{"n":2,"a":"b"}`, true}, {`{"a": "…"}`, `{"a":"b","c":1}`, false}, {`{"a": "b", "c": 1}`, `{"a":"b"}`, false},
		{`{"a": true}`, `{"a":false}`, false}, {`{"a": 1}`, `{"a":"1"}`, false}, {"[1, \"x\"]", `[7,"x"]`, true}, {"[1]", "[1,2]", false},
		{"{\"a\": 1}\n{\"a\": 2}", "{\"a\":1}\n{\"a\":2}", true}, {"{\"a\": 1}", "{\"a\":1}\n{\"a\":2}", false}, {"null", "null", true},
		{"null", "1", false},
		{"true", "true", true}, {"data: {…}", "data: {\"a\":1}", true},
	} {
		split := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }) }
		if problem := fits(split(c.want), split(c.got)); (problem == "") != c.fits {
			t.Errorf("%q and %q: %q", c.want, c.got, problem)
		}
	}
}
