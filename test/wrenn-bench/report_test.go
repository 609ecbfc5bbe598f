package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestCompareTakesTheMedianOfPairs(t *testing.T) {
	f := compare("x", 1.3, []time.Duration{2 * time.Second, 3 * time.Second, 10 * time.Second}, []time.Duration{time.Second, 2 * time.Second, 10 * time.Second})
	if f.Ours != 3 || f.Theirs != 2 || f.Ratio != 1.5 || f.Runs != 3 || !f.over() {
		t.Errorf("%+v", f)
	}
	if f.Limit = 1.6; f.over() {
		t.Error("1.5 is not over 1.6")
	}
	if f.Better, f.Limit = "higher", 0.8; f.over() {
		t.Error("1.5 is above 0.8, and higher is better")
	}
	if f.Limit = 0; f.over() {
		t.Error("no limit, nothing to be over")
	}
}

func TestTableAndFile(t *testing.T) {
	f := []figure{compare("boot", 1.3, []time.Duration{2 * time.Second}, []time.Duration{time.Second})}
	var out bytes.Buffer
	if err := table(&out, f); err != nil || !strings.Contains(out.String(), "OVER") || !strings.Contains(out.String(), "2.00") {
		t.Errorf("%v\n%s", err, out.String())
	}
	path := filepath.Join(t.TempDir(), "bench.json")
	if err := save(path, f); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "ours", "theirs", "unit", "ratio", "limit", "better", "runs", "spread"} {
		if _, ok := back[0][key]; !ok {
			t.Errorf("bench.json has no %q: %s", key, data)
		}
	}
}

func TestPerSecondDoesAll(t *testing.T) {
	for _, n := range []int{1, callers, 2*callers + 3} {
		var done atomic.Int64
		if rate, err := perSecond(t.Context(), n, func(context.Context) error { done.Add(1); return nil }); err != nil || rate <= 0 ||
			done.Load() != int64(n) {
			t.Errorf("%d of %d: %v %v", done.Load(), n, rate, err)
		}
	}
}
