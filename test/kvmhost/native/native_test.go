package native

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// wrenn makes a folder with a wrenn that is a script.
func wrenn(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "wrenn"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFit(t *testing.T) {
	for script, want := range map[string]struct {
		fit bool
		why string
	}{
		`[ "$*" = "host check --json --require run" ]`: {true, "it can run sandboxes itself"},
		`echo '{"items":[{"name":"cpu","state":"ok"},{"name":"kvm","state":"fail","detail":"/dev/kvm is not there"},{"name":"x","state":"fail"}]}'; exit 1`: {
			false, "kvm: /dev/kvm is not there"},
		`echo '{"items":[{"name":"kvm","state":"fail"}]}'; exit 1`: {false, "kvm"},
		`echo '{"items":[]}'; exit 1`:                              {false, "'wrenn host check' ended with exit status 1"},
		`echo 'no JSON'; exit 3`:                                   {false, "'wrenn host check' ended with exit status 3"},
		`kill -9 $$`:                                               {false, "'wrenn host check' ended with signal: killed"},
	} {
		fit, why, err := Fit(t.Context(), wrenn(t, script))
		if err != nil || fit != want.fit || why != want.why {
			t.Errorf("%s: Fit = %v, %q, %v", script, fit, why, err)
		}
	}
}

func TestFitWithoutWrenn(t *testing.T) {
	if fit, why, err := Fit(t.Context(), ""); fit || why == "" || err != nil {
		t.Errorf("no folder: %v, %q, %v", fit, why, err)
	}
	if fit, why, err := Fit(t.Context(), t.TempDir()); fit || !strings.Contains(why, "is not there") || err != nil {
		t.Errorf("an empty folder: %v, %q, %v", fit, why, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "wrenn"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if fit, _, err := Fit(t.Context(), dir); fit || err == nil {
		t.Errorf("a wrenn that can't be run: %v, %v", fit, err)
	}
}

func TestReasonOfAnything(t *testing.T) {
	exit := new(exec.ExitError)
	for _, report := range []string{"", "null", "[]", "{", `{"items":null}`, `{"items":[{"state":"fail"}`, `{"items":7}`} {
		if got := reason([]byte(report), exit); !strings.HasPrefix(got, "'wrenn host check' ended with") {
			t.Errorf("%q: %q", report, got)
		}
	}
}

// TestCommandsFindTheBinaries runs a command on this machine: the folder of binaries is first on its PATH.
func TestCommandsFindTheBinaries(t *testing.T) {
	bin := wrenn(t, "echo it is $1; exit 7")
	h, err := New(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	code, err := h.Run(t.Context(), remote.Command{Args: []string{"sh", "-c", "wrenn $A"}, Env: []string{"A=me"}, Stdout: &out})
	if err != nil || code != 7 || out.String() != "it is me\n" {
		t.Errorf("Run = %d, %v, %q", code, err, &out)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := h.Run(t.Context(), remote.Command{Args: []string{"true"}}); err == nil {
		t.Error("a closed host runs commands")
	}
}
