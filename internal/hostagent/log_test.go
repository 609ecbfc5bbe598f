package hostagent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
)

// lines are the log's, decoded.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) of(t *testing.T, operation string) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for dec := json.NewDecoder(bytes.NewReader(l.buf.Bytes())); dec.More(); {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		if line["msg"] == "operation" && line["operation"] == operation {
			found = append(found, line)
		}
	}
	return found
}

// TestOneLineOfEachOperation has its phases, what it took, and how it ended.
func TestOneLineOfEachOperation(t *testing.T) {
	w, log := newWorld(t), &lines{}
	cfg := w.config(quota.Amount{Sandboxes: 1})
	cfg.Log = slog.New(slog.NewJSONHandler(log, nil))
	a, err := hostagent.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.close(a) })
	w.settle(a)
	sb := w.create(a, hostagent.Spec{})
	if _, _, err := a.Fork(t.Context(), sb.ID, hostagent.Forks{Count: 1}); err == nil {
		t.Fatal("there was room for a fork")
	}
	if _, _, err := a.Pause(t.Context(), sb.ID, "x"); err != nil {
		t.Fatal(err)
	}
	for operation, want := range map[string]struct{ outcome, level, phase string }{
		"create": {"ok", "INFO", "wake"}, "fork": {"resource_exhausted", "INFO", ""}, "pause": {"ok", "INFO", "snapshot"},
	} {
		found := log.of(t, operation)
		if len(found) != 1 {
			t.Errorf("%s has %d lines", operation, len(found))
			continue
		}
		line := found[0]
		phases, _ := line["phases"].(map[string]any)
		if _, ok := phases[want.phase]; line["outcome"] != want.outcome || line["level"] != want.level || line["sandbox"] != sb.ID ||
			line["took"] == nil || !ok && want.phase != "" || (line["error"] != nil) != (want.outcome != "ok") {
			t.Errorf("%s: %v", operation, line)
		}
	}
}
