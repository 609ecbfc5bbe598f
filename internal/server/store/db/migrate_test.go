package db

import (
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
)

// TestAnInstallationGetsAnOperator: the first key of one that was made before there were operators is its operator's, and its snapshots have their
// sandboxes' sizes.
func TestAnInstallationGetsAnOperator(t *testing.T) {
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
	if _, err := p.UpTo(ctx, 1); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, pool, `INSERT INTO teams (id, name) VALUES ('tm', 'tm')`)
	run(ctx, t, pool, `INSERT INTO hosts (id, address) VALUES ('ho', 'ho')`)
	run(ctx, t, pool, `INSERT INTO api_keys (id, team_id, name, prefix, hash, scopes, created_at) VALUES
		('ky-b', 'tm', 'first', 'p', '1', '{read,write,admin}', '2026-01-01'), ('ky-a', 'tm', 'second', 'p', '2', '{read,write,admin}', '2026-01-02'),
		('ky-c', 'tm', 'oldest', 'p', '3', '{read}', '2025-01-02')`)
	run(ctx, t, pool, fill, 1, 3)
	run(ctx, t, pool, `INSERT INTO snapshots (id, team_id, host_id, name, state, sandbox_id, template)
		VALUES ('sn', 'tm', 'ho', 's', 'creating', 'cl-00000000000000000001', 'base')`)
	if _, err := p.Up(ctx); err != nil {
		t.Fatal(err)
	}
	q := New(pool)
	keys, err := q.ListKeys(ctx, ListKeysParams{TeamID: "tm", Page: 10})
	if err != nil || len(keys) != 3 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		if slices.Contains(k.Scopes, "operator") != (k.ID == "ky-b") {
			t.Errorf("%s has %v", k.ID, k.Scopes)
		}
	}
	cut, err := q.SnapshotsCutOff(ctx, SnapshotsCutOffParams{HostID: "ho", Page: 10})
	if err != nil || len(cut) != 1 || cut[0].MemoryMib != 256 || cut[0].Vcpus != 1 {
		t.Errorf("%+v %v", cut, err)
	}
	if _, err := p.DownTo(ctx, 1); err != nil {
		t.Error(err)
	}
}
