package id

import (
	"errors"
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
	f.Add(New())
	f.Add("cl-")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err == nil && (got != s || strings.ContainsAny(s, "/.\x00 ") || len(s) != 23) {
			t.Fatalf("Parse(%q) accepted what is not safe as a name", s)
		}
	})
}
