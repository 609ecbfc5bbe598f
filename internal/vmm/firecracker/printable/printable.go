// Package printable makes text from a guest or a VMM safe to show to a person: bounded, and without a byte that a terminal
// or a log reader would act on.
//
// It is a leaf package.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cut marks text of which a part was left out.
const cut = "…"

// Line returns at most limit bytes of s as one printable line: runs of white space become one blank, everything that can't
// be printed becomes a question mark.
func Line(s string, limit int) string {
	cutOff := len(s) > limit
	if cutOff {
		s = s[:max(limit-len(cut), 0)]
	}
	s = strings.Join(strings.FieldsFunc(clean(s), unicode.IsSpace), " ")
	if cutOff {
		s += cut
	}
	return s
}

// Tail returns at most the last limit bytes of b as printable text. Line ends and tabs stay. Text that was cut begins with
// its first whole line, if there is one.
func Tail(b []byte, limit int) string {
	if len(b) > limit {
		b = b[len(b)-limit:]
		if i := strings.IndexByte(string(b), '\n'); i >= 0 && i+1 < len(b) {
			b = b[i+1:]
		}
	}
	return clean(strings.ReplaceAll(string(b), "\r\n", "\n"))
}

// clean replaces what can't be printed. Control characters, escape sequences' first bytes, bidirectional overrides and
// broken UTF-8 are among it. The result is never longer than s.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == ' ' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
