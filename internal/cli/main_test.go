package cli

import (
	"fmt"
	"os"
	"testing"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
)

// TestMain keeps what the one who runs the tests has stored and set away from them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wrenn-cli-")
	if err == nil {
		err = os.Setenv("XDG_CONFIG_HOME", dir)
	}
	for _, name := range []string{"WRENN_URL", "WRENN_API_KEY", "WRENN_CONTEXT", "WRENN_AGENT_SOCKET", "WRENN_STATE_DIR"} {
		if err == nil {
			err = os.Unsetenv(name)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := postgrestest.Main(m)
	os.RemoveAll(dir)
	os.Exit(code)
}
