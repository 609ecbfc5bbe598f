package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/cli/transfer"
	"wrenn.dev/wrenn/internal/hostcheck"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const (
	docsPath = "../../docs/cli.md"
	docsHead = "<!-- From here on it is made from the commands: go test ./internal/cli -run TestDocs -update -->"
)

// jsonExamples are what the commands with --json print, of the types that they print.
var jsonExamples = func() map[string]any {
	at := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	sb := sandboxView{ID: "cl-0123456789abcdefghij", State: "running", Reason: "the guest answers", Template: "base", VCPUs: 1, MemoryMiB: 512,
		DiskBytes: 2 << 30, Internet: true, Labels: map[string]string{"owner": "ann"}, TTLSeconds: 1800, OnExpiry: "pause", ExpiresAt: &at,
		Changes: []changeView{{"starting", at, "wrenn create"}, {"running", at, "the guest answers"}}}
	stats := statsView{ID: sb.ID, Time: at, CPUMicroseconds: 812_345, MemoryBytes: 90 << 20, MemoryLimitBytes: 608 << 20, DiskUsedBytes: 24 << 20,
		DiskCapacityBytes: 2 << 30, DiskHostBytes: 25 << 20, Pager: &pagerView{CPUMicroseconds: 40_321, MemoryBytes: 4 << 20, Faults: 1234,
			ReadBytes: 30 << 20, PresentPages: 7680, PrefetchedPages: 6000}}
	return map[string]any{
		"create": sb, "get": sb, "ls": []sandboxView{sb}, "stats": []statsView{stats}, "logs": logsView{"login:", "Firecracker v1.12.1"},
		"snapshot ls": []snapshotView{{Name: "ready", Build: "bd-0123456789abcdefghij"}, {Name: "ready", Sandbox: sb.ID, Template: "base", CreatedAt: &at}},
		"events":      eventView{ID: "1795517295093633", Sandbox: sb.ID, State: "paused", Time: at, Reason: "wrenn pause"},
		"cp":          transfer.Result{Files: 2, Folders: 1, Bytes: 5120, Skipped: []transfer.Skipped{{Path: "in/link", Reason: "a symbolic link"}}},
		"fork":        []outcomeView{{Name: sb.ID}, {Error: "the host's limit of 8 vcpus is reached: resource exhausted"}}, "rm": []outcomeView{{Name: sb.ID}},
		"template ls": []templateView{{"base", "tp-0123456789abcdefghij", 1, 512}},
		"context ls":  []contextView{{Name: "local"}, {"work", "https://wrenn.example.org", true}}, "context rm": []outcomeView{{Name: "work"}},
		"context show": targetView{"https://wrenn.example.org", `context "work"`},
		"key create":   keyView{Key: "wrenn_…", ID: "ky-0123456789abcdefghij", Name: "ci", Prefix: "wrenn_0123", Scopes: []string{"read"}, CreatedAt: at, ExpiresAt: &at},
		"key ls":       []keyView{{ID: "ky-0123456789abcdefghij", Name: "ci", Prefix: "wrenn_0123", Scopes: []string{"read"}, CreatedAt: at, LastUsedAt: &at}},
		"url":          urlView{URL: "http://8000-0123456789abcdefghij.localhost:8080/?wrenn_access_token=wrenn_port_…", Token: "wrenn_port_…"},
		"key revoke":   []outcomeView{{Name: "ky-0123456789abcdefghij"}},
		"snapshot rm":  []outcomeView{{Name: "ready", Error: "snapshot ready is in use: failed precondition"}},
		"host check":   hostcheck.Report{Fit: true, Items: []hostcheck.Item{{Name: "kvm", State: "ok", Detail: "it runs a guest"}}},
		"agent status": statusView{Version: "v1.0.0", StartedAt: at, Boot: "9f0a…", States: map[string]uint32{"running": 3, "paused": 1}, Operations: 1,
			Used: amountView{3, 3, 1536, 8 << 30}, Limits: amountView{0, 0, 48 << 10, 500 << 30}, LastEvent: 1795517295093633},
	}
}()

// documented are the commands of a tree, those that do something and those that only hold others.
func documented(cmd *cobra.Command) (list []*cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		list = append(append(list, c), documented(c)...)
	}
	return list
}

// reference is the part of docs/cli.md that follows from the commands.
func reference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	root := newRoot(streams{})
	fmt.Fprintf(&b, "%s\n\n## Commands\n\n| command | what it does |\n| --- | --- |\n", docsHead)
	for _, c := range documented(root) {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), strings.ReplaceAll(c.Short, "|", `\|`))
	}
	fmt.Fprintf(&b, "\nFlags that every command has:\n\n```\n%s```\n", root.PersistentFlags().FlagUsages())
	for _, c := range documented(root) {
		fmt.Fprintf(&b, "\n### %s\n\n", c.CommandPath())
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(text))
		if c.Runnable() {
			fmt.Fprintf(&b, "\n```\n%s\n%s```\n", c.UseLine(), c.LocalNonPersistentFlags().FlagUsages())
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "\n```sh\n%s\n```\n", regexp.MustCompile(`(?m)^  `).ReplaceAllString(c.Example, ""))
		}
		if v := jsonExamples[strings.TrimPrefix(c.CommandPath(), "wrenn ")]; v != nil {
			data, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "\nWith `--json`:\n\n```json\n%s\n```\n", data)
		}
	}
	return b.String()
}

// TestDocs: docs/cli.md says what the commands are, and nothing else.
func TestDocs(t *testing.T) {
	for _, name := range []string{"WRENN_STATE_DIR", "WRENN_IMAGES", "WRENN_FIRECRACKER", "WRENN_JAILER", "WRENN_AGENT_SOCKET"} {
		t.Setenv(name, "")
	}
	text, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, ok := bytes.Cut(text, []byte(docsHead))
	if !ok {
		t.Fatalf("%s has no line %q", docsPath, docsHead)
	}
	want := string(intro) + reference(t)
	if *update {
		if err := os.WriteFile(docsPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Errorf("%s is not what the commands are; run 'go test ./internal/cli -run TestDocs -update'", docsPath)
	}
}

// TestDocsNameCommandsThatAre: in the words written by hand, too, and in those of the README.
func TestDocsNameCommandsThatAre(t *testing.T) {
	root := newRoot(streams{})
	named := regexp.MustCompile("wrenn ((?:[a-z]+ ?)+)")
	code := regexp.MustCompile("(?s)```.*?```|`[^`]*`")
	seen := 0
	for _, path := range []string{docsPath, "../../README.md"} {
		text, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range code.FindAll(text, -1) {
			for _, m := range named.FindAllSubmatch(part, -1) {
				words := strings.Fields(string(m[1]))
				if cmd, _, err := root.Find(words); words[0] != "completion" && words[0] != "help" && (err != nil || cmd == root) {
					t.Errorf("%s names %q, which is no command", path, m[0])
				}
				seen++
			}
		}
	}
	if seen < 50 {
		t.Errorf("%d commands are named: the test does not see them", seen)
	}
}

// TestEveryCommandTeaches: each has an example, and each --json has its shape in the documentation.
func TestEveryCommandTeaches(t *testing.T) {
	for _, c := range documented(newRoot(streams{})) {
		name := strings.TrimPrefix(c.CommandPath(), "wrenn ")
		if c.Runnable() && c.Example == "" {
			t.Errorf("%s has no example", name)
		}
		if _, ok := jsonExamples[name]; ok != (c.Flag("json") != nil) {
			t.Errorf("%s: --json is %v, and its shape is documented: %v", name, c.Flag("json") != nil, ok)
		}
	}
}
