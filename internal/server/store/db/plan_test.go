package db

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// fill has a team's sandboxes from one number to another: nearly all have ended, as they do, and one in a thousand is special.
const fill = `INSERT INTO sandboxes (id, team_id, host_id, state, reason, template, vcpus, memory_mib, disk_bytes, internet, metadata, ttl_seconds,
    on_expiry, created_at)
SELECT 'cl-' || lpad(n::text, 20, '0'), 'tm', 'ho', CASE WHEN n % 50 = 0 THEN 'running' ELSE 'stopped' END, '', 'base', 1, 256, 0, true,
    CASE WHEN n % 1000 = 7 THEN '{"special": "yes", "run": "1"}' ELSE jsonb_build_object('run', (n % 7)::text) END, 0, 'destroy',
    '2026-01-01'::timestamptz + n * interval '1 second'
FROM generate_series($1::int, $2::int) AS n`

// TestAPageIsFlat counts the blocks that a page of a list reads: as many of a hundred sandboxes as of a hundred thousand.
func TestAPageIsFlat(t *testing.T) {
	ctx := t.Context()
	pool, err := pgxpool.New(ctx, postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	sqlDB := stdlib.OpenDBFromPool(pool)
	defer sqlDB.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, sqlDB, os.DirFS("../migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(ctx); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, pool, `INSERT INTO teams (id, name) VALUES ('tm', 'tm')`)
	run(ctx, t, pool, `INSERT INTO hosts (id, address) VALUES ('ho', 'ho')`)
	run(ctx, t, pool, `ALTER TABLE sandboxes DISABLE TRIGGER sandbox_changed`)
	alive, all := []string{"starting", "running", "pausing", "paused", "resuming", "stopping"}, []string{"running", "stopped", "failed", "lost"}
	middle, end, page := time.Date(2026, 1, 1, 0, 0, 50, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 50
	pages := map[string]struct {
		sql  string
		args []any
	}{
		"alive":        {listSandboxes, []any{alive, "tm", end, "", page}},
		"all":          {listSandboxes, []any{all, "tm", end, "", page}},
		"a later page": {listSandboxes, []any{all, "tm", middle, "cl-", page}},
		"metadata":     {listSandboxesByMetadata, []any{"tm", all, end, "", `{"special": "yes"}`, 5}},
	}
	first, had := map[string]int{}, 0
	for _, n := range []int{100, 10_000, 100_000} {
		run(ctx, t, pool, fill, had+1, n)
		run(ctx, t, pool, "VACUUM ANALYZE sandboxes")
		had = n
		for name, q := range pages {
			got := blocks(ctx, t, pool, q.sql, q.args)
			t.Logf("%-12s of %6d: %d blocks", name, n, got)
			if n == 100 {
				first[name] = got
			} else if most := 4*first[name] + 100; got > most {
				t.Errorf("%s: a page of %d reads %d blocks, over %d", name, n, got, most)
			}
		}
	}
}

func run(ctx context.Context, t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(ctx, sql, args...); err != nil {
		t.Fatal(err)
	}
}

// blocks is how many blocks a query reads, in memory or not.
func blocks(ctx context.Context, t *testing.T, pool *pgxpool.Pool, sql string, args []any) int {
	t.Helper()
	var raw []byte
	args = append([]any{pgx.QueryExecModeExec}, args...) // planned for these values, as pgx does at first
	if err := pool.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	var plans []struct {
		Plan map[string]any
	}
	if err := json.Unmarshal(raw, &plans); err != nil || len(plans) != 1 {
		t.Fatal(string(raw), err)
	}
	hit, _ := plans[0].Plan["Shared Hit Blocks"].(float64)
	read, _ := plans[0].Plan["Shared Read Blocks"].(float64)
	if hit+read == 0 {
		t.Fatalf("no block was read: %s", raw)
	}
	return int(hit + read)
}
