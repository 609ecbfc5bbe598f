//go:build hosttest

// Package e2e tests wrenn as its users run it: the built binary, real Firecracker, a real guest. After every test nothing of
// ours may be left on the host, and nothing foreign may have changed.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds one run of the binary. Under emulation a boot takes many seconds.
const patience = 4 * time.Minute

// result is how a run of the binary ended.
type result struct {
	code        int
	out, errOut string
}

// binary is the built wrenn.
func binary(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WRENN_BIN")
	if dir == "" {
		t.Fatal("WRENN_BIN does not name the folder of the built binaries; run these tests by 'make host-test'")
	}
	return filepath.Join(dir, "wrenn")
}

// command prepares a run of the binary. Extra environment goes into env.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// finish runs a prepared command to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// wrenn runs the binary.
func wrenn(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, command(t, nil, args...))
}

// want fails the test unless the run ended with the code.
func (r result) want(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.out, r.errOut)
	}
	return r
}

// fields reads the NAME=VALUE lines that a script in a guest printed.
func (r result) fields() map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(r.out) {
		if k, v, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok {
			m[k] = v
		}
	}
	return m
}
