package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain text", 40, "plain text"},
		{"two\nlines\r\n\tand  more ", 40, "two lines? and more"},
		{"\x1b[31mred\x07", 40, "?[31mred?"},
		{"right\u202eleft", 40, "right?left"},
		{"broken \xff utf-8", 40, "broken ? utf-8"},
		{strings.Repeat("a", 100), 10, "aaaaaaa…"},
		{"ab", 0, "…"},
		{"", 10, ""},
	} {
		if got := Line(c.in, c.limit); got != c.want {
			t.Errorf("Line(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestTail(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"one\r\ntwo\n", 40, "one\ntwo\n"},
		{"first\nsecond\nthird\n", 14, "second\nthird\n"},
		{"no line end at all", 6, "at all"},
		{"esc\x1b]0;title\x07\n", 40, "esc?]0;title?\n"},
		{"", 10, ""},
	} {
		if got := Tail([]byte(c.in), c.limit); got != c.want {
			t.Errorf("Tail(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[0m\n\xc3\x28", 10)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = int(uint(limit) % 5000)
		for _, got := range []string{Line(s, limit), Tail([]byte(s), limit)} {
			if len(got) > max(limit, len(cut)) || !utf8.ValidString(got) {
				t.Fatalf("%d bytes for a limit of %d, or no UTF-8: %q", len(got), limit, got)
			}
			for _, r := range got {
				if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
					t.Fatalf("%q holds %q", got, r)
				}
			}
		}
		if strings.ContainsAny(Line(s, limit), "\n\t") {
			t.Fatal("a line has two lines")
		}
	})
}
