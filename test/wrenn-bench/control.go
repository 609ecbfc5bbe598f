package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/hostagent/simagent"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/postgres"
	"wrenn.dev/wrenn/internal/server"
)

// controlCommand measures the control plane, which needs no host that can run sandboxes but a PostgreSQL.
const controlCommand = "control"

// The limits of what the control plane may cost.
const (
	createsLimit = 0.3 // creates/s by the server beside a plain loop that does the same to the same database
	pageLimit    = 2.0 // a page of a list of a hundred thousand sandboxes beside one of a hundred
)

const (
	// callers is how many create at once, on both sides, and createsPerSlice how many sandboxes either makes before it is the other's turn, which
	// it is slicesPerRun times in a run: what else the machine does in that time troubles both.
	callers         = 16
	createsPerSlice = 250
	slicesPerRun    = 3
	// pageReads is how many pages are read of each size.
	pageReads = 200
)

// listSizes are how many sandboxes there are when a page is read.
var listSizes = []int{100, 10_000, 100_000}

func controlMain(args []string) int {
	fl := flag.NewFlagSet(controlCommand, flag.ExitOnError)
	runs := fl.Int("runs", 7, "pairs to measure")
	out := fl.String("out", "bench-control.json", "file for the figures as JSON")
	_ = fl.Parse(args) // it exits
	figures, err := measureControl(context.Background(), *runs)
	if err == nil {
		err = errors.Join(table(os.Stdout, figures), save(*out, figures))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wrenn-bench:", err)
		return 2
	}
	return verdict(figures)
}

// plane is a server on a database of its own, over a host that is not there.
type plane struct {
	url, key string
	http     *http.Client
	db       *pgxpool.Pool
	team     string
	calls    *atomic.Int64 // of the host
}

// quietTime is how long a server does nothing that has caught up with what its host tells.
const quietTime = 200 * time.Millisecond

// rest waits until the server has caught up: what it does after its answers is not to slow down the other side.
func (p *plane) rest(ctx context.Context) error {
	for before := int64(-1); before != p.calls.Load(); {
		before = p.calls.Load()
		select {
		case <-time.After(quietTime):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func measureControl(ctx context.Context, runs int) (figures []figure, err error) {
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	p, err := startPlane(ctx, cu)
	if err != nil {
		return nil, err
	}
	f, err := p.creates(ctx, runs)
	if err != nil {
		return nil, err
	}
	pages, err := p.pages(ctx)
	return append([]figure{f}, pages...), err
}

// startPlane has everything run in this process but the database.
func startPlane(ctx context.Context, cu *cleanup.Stack) (*plane, error) {
	dir, err := os.MkdirTemp("/tmp", "wrenn-bench-") // a short name: sockets are in it
	if err != nil {
		return nil, err
	}
	cu.Add("remove the folder", func(context.Context) error { return os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the database's user goes through it
		return nil, err
	}
	db, err := postgres.Start(ctx, postgres.Config{Dir: filepath.Join(dir, "pg")})
	if err != nil {
		return nil, err
	}
	cu.Add("stop the database", db.Close)
	socket := filepath.Join(dir, "agent.sock")
	agent, err := rpc.Unix(socket)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	cu.Add("stop what runs", func(context.Context) error { stop(); running.Wait(); return nil })
	host := simagent.New(simagent.Config{}).Handler()
	calls := new(atomic.Int64)
	counted := func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		host.ServeHTTP(w, r)
	}
	running.Go(func() { _ = rpc.Serve(ctx, http.HandlerFunc(counted), time.Second, agent) })
	s, err := server.Open(ctx, server.Config{DatabaseURL: db.URL(), Agent: "unix://" + socket, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	cu.Add("close the server", func(context.Context) error { running.Wait(); s.Close(); return nil })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	running.Go(func() { _ = s.Serve(ctx, l) })
	p := &plane{calls: calls, url: "http://" + l.Addr().String(), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}}
	cu.Add("stop the server", func(context.Context) error { stop(); return nil })
	if p.key, err = s.FirstKey(ctx); err != nil {
		return nil, err
	}
	if p.db, err = pgxpool.New(ctx, db.URL()); err != nil { // as many connections as the server has
		return nil, err
	}
	cu.Add("close the connections", func(context.Context) error { p.db.Close(); return nil })
	return p, p.db.QueryRow(ctx, "SELECT team_id FROM api_keys").Scan(&p.team)
}

// ask sends a request and reads the whole answer, which must have the status.
func (p *plane) ask(ctx context.Context, method, path, body string, status int) error {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != status {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return err
}

// creates measures how many sandboxes a second the server makes, beside a loop that writes the same rows in the same transactions.
func (p *plane) creates(ctx context.Context, runs int) (figure, error) {
	byServer := func(ctx context.Context) error {
		return p.ask(ctx, http.MethodPost, "/v1/sandboxes", `{"template":"base"}`, http.StatusCreated)
	}
	// The server's watch takes what its host does not have for lost: these are of a host that nobody watches.
	other := id.NewOf(id.Host)
	if _, err := p.db.Exec(ctx, "INSERT INTO hosts (id, address) VALUES ($1, $1)", other); err != nil {
		return figure{}, err
	}
	bare := func(ctx context.Context) error { return p.insert(ctx, other) }
	var ours, theirs []float64
	for i := range slicesPerRun*runs + 1 {
		o, err := perSecond(ctx, createsPerSlice, byServer)
		if err != nil {
			return figure{}, err
		}
		if err := p.rest(ctx); err != nil {
			return figure{}, err
		}
		b, err := perSecond(ctx, createsPerSlice, bare)
		if err != nil {
			return figure{}, err
		}
		if i == 0 {
			continue // connections, plans and caches are there from now on
		}
		fmt.Printf("creates %d of %d: server %.0f/s, plain loop %.0f/s\n", i, slicesPerRun*runs, o, b)
		ours, theirs = append(ours, o), append(theirs, b)
	}
	f := pairs("creates by the server / a plain loop of inserts", createsLimit, ours, theirs)
	f.Unit, f.Better = "1/s", "higher"
	return f, nil
}

// perSecond is how often a second fn is done by callers at once.
func perSecond(ctx context.Context, n int, fn func(context.Context) error) (float64, error) {
	g, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i := range callers {
		g.Go(func() error {
			for range (n + i) / callers {
				if err := fn(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(n) / time.Since(began).Seconds(), err
}

// insert writes what the server writes when it makes a sandbox: the row with its event, and that it runs with its event. It is two transactions,
// because what is in between takes as long as a machine takes to start.
func (p *plane) insert(ctx context.Context, host string) error {
	name, op := id.New(), id.NewOf(id.Operation)
	err := pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO sandboxes (id, team_id, host_id, state, reason, op, op_until, template, vcpus, memory_mib, disk_bytes,
				internet, metadata, ttl_seconds, on_expiry)
			VALUES ($1, $2, $3, 'starting', 'asked for', $4, now() + interval '16 minutes', 'base', 0, 0, 0, true, '{}', 0, 'destroy')`,
			name, p.team, host, op)
		return err
	})
	if err != nil {
		return err
	}
	_, err = p.db.Exec(ctx, `UPDATE sandboxes SET state = 'running', reason = 'the guest answers', op = NULL, op_until = NULL,
		template = 'base', vcpus = 1, memory_mib = 256, disk_bytes = 2147483648
		WHERE id = $1 AND op = $2`, name, op)
	return err
}

// pages measures a page of a hundred of a list, of more and more sandboxes, by the REST API.
func (p *plane) pages(ctx context.Context) ([]figure, error) {
	var figures []figure
	var first []float64
	for i, n := range listSizes {
		if err := p.fill(ctx, n); err != nil {
			return nil, err
		}
		took := make([]float64, 0, pageReads)
		for range pageReads {
			d, err := timed(func() error { return p.ask(ctx, http.MethodGet, "/v1/sandboxes?limit=100", "", http.StatusOK) })
			if err != nil {
				return nil, err
			}
			took = append(took, d.Seconds())
		}
		if i == 0 {
			first = took
			continue
		}
		limit := 0.0
		if i == len(listSizes)-1 {
			limit = pageLimit
		}
		f := figure{Name: fmt.Sprintf("a page of %d sandboxes / of %d", n, listSizes[0]), Ours: median(took), Theirs: median(first), Unit: "s",
			Limit:  limit,
			Better: "lower", Runs: pageReads}
		f.Ratio = f.Ours / f.Theirs
		figures = append(figures, f)
	}
	return figures, nil
}

// fill has the team have so many sandboxes that have not ended, on a host that nobody watches.
func (p *plane) fill(ctx context.Context, n int) error {
	const rows = `INSERT INTO sandboxes (id, team_id, host_id, state, reason, template, vcpus, memory_mib, disk_bytes, internet, metadata, ttl_seconds,
			on_expiry, created_at)
		SELECT 'cl-' || lpad(n::text, 20, '0'), $1, 'listed', CASE WHEN n % 3 = 0 THEN 'paused' ELSE 'running' END, 'the guest answers', 'base', 1, 256,
			2147483648, true, jsonb_build_object('run', (n % 7)::text), 0, 'destroy', now() + n * interval '1 millisecond'
		FROM generate_series((SELECT count(*) + 1 FROM sandboxes WHERE host_id = 'listed'), $2::bigint) AS n`
	return pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica") // no events of what did not happen
		if err == nil {
			_, err = tx.Exec(ctx, "DELETE FROM sandboxes WHERE host_id <> 'listed'")
		}
		if err == nil {
			_, err = tx.Exec(ctx, rows, p.team, n)
		}
		return err
	})
}
