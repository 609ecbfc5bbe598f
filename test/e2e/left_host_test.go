//go:build hosttest

package e2e

import (
	"context"
	"os"
	"testing"

	"wrenn.dev/wrenn/internal/leftovers"
)

// stateDir is the folder of all state that the binary uses here.
func stateDir() string {
	if dir := os.Getenv("WRENN_STATE_DIR"); dir != "" {
		return dir
	}
	return "/var/lib/wrenn"
}

// nothingLeft makes the test fail if anything of ours is on the host when it ends, or anything foreign is not as it was.
func nothingLeft(t *testing.T) {
	t.Helper()
	before := look(t)
	t.Cleanup(func() {
		for _, change := range before.Changes(look(t)) {
			t.Errorf("foreign to us, and changed: %s", change)
		}
	})
}

// look fails the test for everything of ours that is on the host, and returns what is not ours.
func look(t *testing.T) leftovers.Baseline {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	left, err := leftovers.Find(ctx, stateDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range left {
		t.Errorf("left behind: %s", o)
	}
	foreign, err := leftovers.Foreign(ctx, stateDir())
	if err != nil {
		t.Fatal(err)
	}
	return foreign
}
