package kmsg

import (
	"strings"
	"testing"
)

func TestRecord(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"mount failed", "<4>wrenn-init: mount failed\n"},
		{"two\nlines\x1b[0m", "<4>wrenn-init: two lines [0m\n"},
		{strings.Repeat("a", 2000), "<4>wrenn-init: " + strings.Repeat("a", maxLine) + "\n"},
	} {
		if got := string(record(4, tc.in)); got != tc.want {
			t.Errorf("record(%.20q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}
