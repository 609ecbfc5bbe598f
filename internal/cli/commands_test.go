package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func TestCreateGetAndList(t *testing.T) {
	serveAgent(t)
	id := made(t, "--ttl", "30m", "--on-expiry", "pause", "--label", "owner=ann", "--label", "note=a b", "--no-internet")
	code, out, errOut := wrenn(t, "", "get", "--json", id)
	v := decode[sandboxView](t, out)
	if code != 0 || v.ID != id || v.State != "running" || v.Template != "base" || v.VCPUs != 1 || v.MemoryMiB != 256 || v.Internet || v.TTLSeconds != 1800 ||
		v.OnExpiry != "pause" || v.ExpiresAt == nil || v.Labels["owner"] != "ann" || len(v.Changes) != 2 || v.Reason == "" {
		t.Errorf("%d, %+v, %q", code, v, errOut)
	}
	if code, out, _ := wrenn(t, "", "get", id); code != 0 || !strings.Contains(out, "running") || !strings.Contains(out, `"note=a b",owner=ann`) || !strings.Contains(out, "1800s, then pause") {
		t.Error(code, out)
	}
	code, out, _ = wrenn(t, "", "create", "--json", "--progress")
	other := decode[sandboxView](t, out)
	if code != 0 || other.State != "running" || !other.Internet || other.OnExpiry != "" {
		t.Errorf("%d, %+v", code, other)
	}
	wrenn(t, "", "pause", id)
	_, out, _ = wrenn(t, "", "ls", "--json")
	list := decode[[]sandboxView](t, out)
	if len(list) != 2 || list[0].ID == list[1].ID {
		t.Errorf("%+v", list)
	}
	if _, out, _ := wrenn(t, "", "ls"); !strings.Contains(out, "paused") || strings.Count(out, "\n") != 3 {
		t.Error(out)
	}
	if _, out, _ := wrenn(t, "", "ls", "-q"); len(strings.Fields(out)) != 2 || !strings.Contains(out, id) {
		t.Error(out)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"create", "--ttl", "1ms"}, exitUsage, "--ttl"}, {[]string{"create", "--ttl", "9999999h"}, exitUsage, "--ttl"},
		{[]string{"create", "--on-expiry", "sing"}, exitUsage, "--on-expiry"}, {[]string{"create", "--label", "x"}, exitUsage, "--label"},
		{[]string{"create", "--template", "none"}, exitUsage, "--template"}, {[]string{"create", "--snapshot", "none"}, exitUsage, "--snapshot"},
		{[]string{"get", "cl-0123456789abcdefghij"}, exitFailed, "not found"}, {[]string{"get", "x"}, exitUsage, "id"}, {[]string{"get"}, exitUsage, "wrenn ls"},
	} {
		if code, _, errOut := wrenn(t, "", c.args...); code != c.code || !strings.Contains(errOut, c.says) {
			t.Errorf("%v: %d, %q", c.args, code, errOut)
		}
	}
}

// before is the number before an agent's event.
func before(t *testing.T, id string) string {
	t.Helper()
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(n-1, 10)
}

func TestShell(t *testing.T) {
	serveAgent(t)
	id := made(t)
	code, out, errOut := wrenn(t, "echo here", "shell", "--user", "u", id)
	if code != 7 || !strings.Contains(out, "exec bash -l") || !strings.HasSuffix(out, "u") || errOut != "echo here" {
		t.Errorf("%d, %q, %q", code, out, errOut)
	}
}

func TestLogsStatsAndEvents(t *testing.T) {
	serveAgent(t)
	id := made(t)
	if code, out, errOut := wrenn(t, "", "logs", id); code != 0 || !strings.Contains(out, "==> console <==") || !strings.Contains(out, "==> vmm <==") {
		t.Error(code, out, errOut)
	}
	if code, out, _ := wrenn(t, "", "logs", "--only", "vmm", id); code != 0 || strings.Contains(out, "==>") {
		t.Error(code, out)
	}
	_, out, _ := wrenn(t, "", "logs", "--json", id)
	decode[logsView](t, out)
	_, out, _ = wrenn(t, "", "stats", "--json")
	stats := decode[[]statsView](t, out)
	if len(stats) != 1 || stats[0].ID != id || stats[0].CPUMicroseconds != 256_000 || stats[0].Pager == nil || stats[0].Pager.Faults != 3 {
		t.Errorf("%+v", stats)
	}
	if code, out, _ := wrenn(t, "", "stats", id); code != 0 || !strings.Contains(out, "256ms") || !strings.Contains(out, "256K of 256M") {
		t.Error(code, out)
	}
	other := made(t)
	wrenn(t, "", "pause", id)
	_, out, errOut := wrenn(t, "", "events", "--past", "--no-follow", "--json", id)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 4 || strings.Contains(out, other) || errOut != "" {
		t.Fatalf("%q, %q", out, errOut)
	}
	last := decode[eventView](t, lines[3])
	if last.Sandbox != id || last.State != "paused" || last.Reason != "wrenn pause" || last.Time.IsZero() {
		t.Errorf("%+v", last)
	}
	_, out, _ = wrenn(t, "", "events", "--no-follow", "--after", before(t, last.ID))
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, id+"  paused: wrenn pause") {
		t.Error(out)
	}
	if _, out, _ := wrenn(t, "", "events", "--no-follow"); out != "" {
		t.Error(out)
	}
	if _, out, _ := wrenn(t, "", "events", "--no-follow", "--after", "1"); !strings.Contains(out, "are missing") {
		t.Error(out)
	}
	for _, args := range [][]string{{"events", "x"}, {"events", "--past", "--after", "7"}, {"events", "--after", "1.2"}, {"logs", "--only", "x", id}, {"logs", "--bytes", "0", id}, {"stats", "x"}} {
		if code, _, errOut := wrenn(t, "", args...); code != exitUsage || errOut == "" {
			t.Errorf("%v: %d, %q", args, code, errOut)
		}
	}
	wrenn(t, "", "snapshot", "create", other, "one")
	if _, out, _ = wrenn(t, "", "snapshot", "ls", "--json"); decode[[]snapshotView](t, out)[0].Name != "one" {
		t.Error(out)
	}
	if _, out, _ = wrenn(t, "", "snapshot", "ls"); !strings.Contains(out, "one") {
		t.Error(out)
	}
}

// TestWithoutAnAgent: what needs one says so, with the fix.
func TestWithoutAnAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	t.Setenv("WRENN_AGENT_SOCKET", socket)
	const id = "cl-0123456789abcdefghij"
	for _, args := range [][]string{{"cp", id + ":x", "."}, {"logs", id}, {"stats"}, {"events"}, {"create", "--ttl", "1m"}, {"create", "--label", "a=b"}} {
		code, _, errOut := wrenn(t, "", args...)
		if code != exitFailed || !strings.Contains(errOut, "'wrenn agent'") || !strings.Contains(errOut, socket) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%v: %d, %q", args, code, errOut)
		}
	}
	if code, _, errOut := wrenn(t, "", "stats", "--state-dir", t.TempDir()); code != exitFailed || !strings.Contains(errOut, "leave the flag out") {
		t.Error(code, errOut)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := wrenn(t, "", "stats"); code != exitFailed {
		t.Error(code)
	}
	if code := report(fmt.Errorf("x: %w", errs.ErrPermissionDenied), io.Discard); code != exitDenied {
		t.Errorf("permission denied is %d", code)
	}
}

// TestCompletion asks what a shell asks.
func TestCompletion(t *testing.T) {
	_, g := serveFiles(t)
	id, paused := made(t), made(t)
	wrenn(t, "", "pause", paused)
	wrenn(t, "", "snapshot", "create", id, "ready")
	write(t, filepath.Join(g.Home, "dir", "file"), nil, 0o644)
	for what, c := range map[string]struct {
		args     []string
		has, not []string
	}{
		"exec": {[]string{"exec", ""}, []string{id + "\trunning from base"}, []string{paused}}, "resume": {[]string{"resume", "cl-"}, []string{paused}, []string{id}},
		"get": {[]string{"get", ""}, []string{id, paused}, nil}, "rm twice": {[]string{"rm", id, ""}, []string{paused}, []string{id}},
		"get twice": {[]string{"get", id, ""}, nil, []string{paused}}, "snapshot rm": {[]string{"snapshot", "rm", "r"}, []string{"ready"}, nil},
		"flag": {[]string{"create", "--snapshot", ""}, []string{"ready"}, nil}, "words": {[]string{"create", "--on-expiry", ""}, []string{"pause"}, nil},
		"cp": {[]string{"cp", "cl-"}, []string{id + ":"}, []string{paused}}, "cp home": {[]string{"cp", id + ":"}, []string{id + ":dir/"}, nil},
		"cp below": {[]string{"cp", id + ":dir/f"}, []string{id + ":dir/file"}, nil}, "cp here": {[]string{"cp", "./"}, nil, []string{id}},
		"other state": {[]string{"get", "--state-dir", t.TempDir(), ""}, nil, []string{id}},
	} {
		code, out, _ := wrenn(t, "", append([]string{"__complete"}, c.args...)...)
		for _, has := range c.has {
			if code != 0 || !strings.Contains(out, has) {
				t.Errorf("%s: %d, %q has no %q", what, code, out, has)
			}
		}
		for _, not := range c.not {
			if strings.Contains(out, not) {
				t.Errorf("%s: %q", what, out)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, _ := wrenn(t, "", "completion", shell); code != 0 || !strings.Contains(out, "wrenn") {
			t.Errorf("%s: %d", shell, code)
		}
	}
}
