package version

import "testing"

func TestString(t *testing.T) {
	if got := String(); got != Version+" ("+Commit+")" || Version == "" || Commit == "" {
		t.Errorf("got %q", got)
	}
}
