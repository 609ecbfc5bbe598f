//go:build hosttest

package e2e

import (
	"os"
	"testing"

	"wrenn.dev/wrenn/internal/pager/process"
)

// TestMain lets this program be the pager of the sandboxes that it starts itself, as the built binary is of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == process.Command {
		os.Exit(process.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}
