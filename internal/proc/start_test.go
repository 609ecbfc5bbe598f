package proc

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// TestHugePagesAreTheOthers starts processes of both kinds at once: each has what was asked for, and this one what it had.
func TestHugePagesAreTheOthers(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 20 {
		start, want := Start, "THP_enabled:\t1"
		if i%2 == 1 {
			start, want = StartWithoutHugePages, "THP_enabled:\t0"
		}
		wg.Go(func() {
			var out bytes.Buffer
			cmd := exec.Command("cat", "/proc/self/status")
			cmd.Stdout = &out
			if err := start(cmd); err != nil {
				t.Error(err)
				return
			}
			if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), want) {
				t.Errorf("%v: no %q in %s", err, want, out.String())
			}
		})
	}
	wg.Wait()
}
