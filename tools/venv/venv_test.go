package venv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/buildcache"
)

// TestEnvironment has nothing in it but Python: what comes from the package index is tested by what uses it.
func TestEnvironment(t *testing.T) {
	t.Setenv(buildcache.Env, t.TempDir())
	file := filepath.Join(t.TempDir(), "requirements.txt")
	if err := os.WriteFile(file, []byte("# nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env, err := Make(t.Context(), "nothing", file)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(env.dir, "bin", "where")
	if err := os.WriteFile(program, []byte("import sys\nprint(sys.prefix, *sys.argv[1:])\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := env.Command(t.Context(), "where", "a", "b").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != env.dir+" a b" {
		t.Errorf("%q %v, want %q", got, err, env.dir+" a b")
	}
	// A line without a digest is refused.
	if err := os.WriteFile(file, []byte("wheel==0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(t.Context(), "nothing", file); err == nil || !strings.Contains(err.Error(), "hash") {
		t.Errorf("without a digest: %v", err)
	}
}
