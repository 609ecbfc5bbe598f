// Package postgrestest gives tests a real PostgreSQL: one server for a package's tests, a database for each of them.
//
// A goroutine that is left at their end fails them.
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
//
//	s, err := store.Open(ctx, postgrestest.Database(t))
package postgrestest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/postgres"
)

var (
	server *postgres.Server
	last   atomic.Int64
)

// Main runs a package's tests with a server, and returns the exit code.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("/tmp", "wrenn-pg-") // a short name: a socket is in it
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the server's user goes through it
		return failed(err)
	}
	ctx := context.Background()
	if server, err = postgres.Start(ctx, postgres.Config{Dir: filepath.Join(dir, "pg")}); err != nil {
		return failed(err)
	}
	// Nothing of this survives the tests: it need not survive a loss of power.
	if err := exec(ctx, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"); err != nil {
		return failed(err)
	}
	code := m.Run()
	if err := server.Close(ctx); err != nil {
		return failed(err)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		return failed(err)
	}
	return code
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "postgrestest:", err)
	return 1
}

func exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// Database returns the URL of a new, empty database.
func Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", last.Add(1))
	if err := exec(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}
