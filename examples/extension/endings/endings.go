// Package endings is an extension that counts how sandboxes ended: it hears of every change of state, keeps what it needs in tables of its own, answers
// one more address, and forgets what is old in the background.
package endings

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"wrenn.dev/wrenn/extension"
)

// Extension implements extension.Extension.
type Extension struct {
	// Keep is how long an ending counts; zero is 30 days.
	Keep time.Duration
}

var _ extension.Extension = Extension{}

// Name implements extension.Extension.
func (Extension) Name() string { return "endings" }

const schema = `CREATE SCHEMA IF NOT EXISTS ext_endings;
CREATE TABLE IF NOT EXISTS ext_endings.endings (
	event text PRIMARY KEY,
	team  text NOT NULL,
	state text NOT NULL,
	at    timestamptz NOT NULL
)`

// Start implements extension.Extension.
func (e Extension) Start(ctx context.Context, host extension.Host) (extension.Parts, error) {
	if e.Keep == 0 {
		e.Keep = 30 * 24 * time.Hour
	}
	if _, err := host.Database.Exec(ctx, schema); err != nil {
		return extension.Parts{}, err
	}
	l := ledger{host.Database, e.Keep}
	return extension.Parts{
		Routes:  []extension.Route{{Pattern: "GET /mine", Scope: "read", Handler: http.HandlerFunc(l.mine)}},
		Workers: []extension.Worker{{Name: "forget", Run: l.forget}},
		OnEvent: l.note,
	}, nil
}

type ledger struct {
	db   *pgxpool.Pool
	keep time.Duration
}

// note writes an ending down. An event may be told twice: its id counts once.
func (l *ledger) note(ctx context.Context, e extension.Event) error {
	switch e.State {
	case "stopped", "failed", "lost":
		_, err := l.db.Exec(ctx, `INSERT INTO ext_endings.endings VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, e.ID, e.Team, e.State, e.At)
		return err
	}
	return nil
}

// mine answers how many of the caller's sandboxes ended in which way.
func (l *ledger) mine(w http.ResponseWriter, r *http.Request) {
	counts := map[string]int{"stopped": 0, "failed": 0, "lost": 0}
	rows, err := l.db.Query(r.Context(), `SELECT state, count(*) FROM ext_endings.endings WHERE team = $1 GROUP BY state`, extension.Caller(r.Context()).Team)
	if err != nil {
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var state string
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
			return
		}
		counts[state] = n
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(counts) // nobody is left to tell
}

// forget deletes what is too old, once an hour.
func (l *ledger) forget(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if _, err := l.db.Exec(ctx, `DELETE FROM ext_endings.endings WHERE at < now() - $1::interval`, l.keep); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
