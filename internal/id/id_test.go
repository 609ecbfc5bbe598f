package id

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestNewParses(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := New()
		if _, err := Parse(s); err != nil {
			t.Fatal(err)
		}
		if seen[s] {
			t.Fatalf("%s came twice", s)
		}
		seen[s] = true
	}
}

func TestParseRefuses(t *testing.T) {
	good := New()
	for _, s := range []string{"", "cl-", good[3:], good + "0", good[:len(good)-1], strings.ToUpper(good), "cl-" + strings.Repeat("/", 20), "cl-../../../../../../.", strings.Repeat("a", 1<<16)} {
		if _, err := Parse(s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Parse(%.30q) = %v, want ErrInvalid", s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	kinds := []string{Prefix, Team, Key, Host, Snapshot, Template, Operation, Request}
	for _, k := range kinds {
		f.Add(NewOf(k))
	}
	f.Add("cl-")
	f.Add("cl-zzzzzzzzzzzzzzzzzzzzz")
	f.Add("cl-0123456789abcdefghij\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, k := range kinds {
			got, err := ParseOf(k, s)
			if err == nil && (got != s || strings.ContainsAny(s, "/.\x00 ") || len(s) != 23 || !strings.HasPrefix(s, k)) {
				t.Fatalf("ParseOf(%q, %q) accepted what is not safe as a name", k, s)
			}
			if err != nil && !errors.Is(err, errs.ErrInvalid) {
				t.Fatal(err)
			}
			if matched := regexp.MustCompile(Pattern(k)).MatchString(s); matched != (err == nil) {
				t.Fatalf("%q: ParseOf says %v, and its pattern matches: %v", s, err, matched)
			}
		}
	})
}

func TestIdsOfAnOperation(t *testing.T) {
	op := NewOf(Operation)
	if _, err := ParseOf(Snapshot, As(Snapshot, op)); err != nil || As(Operation, As(Prefix, op)) != op {
		t.Error(err)
	}
	seen := map[string]bool{}
	for n := range 1000 {
		s := Derived(Prefix, op, n)
		if _, err := Parse(s); err != nil || seen[s] || s != Derived(Prefix, op, n) {
			t.Fatal(s, err)
		}
		seen[s] = true
	}
}
