// Package store keeps what the server knows, in PostgreSQL: the server has nothing elsewhere, and two of them may run side by side.
//
//	s, err := store.Open(ctx, url)                                  // brings the schema up to date
//	sb, err := s.Create(ctx, store.NewSandbox{…, Op: op})           // starting
//	sb, err = s.Started(ctx, sb.ID, op, store.Sizes{…}, "asked for")  // running, unless something else happened meanwhile
//
// Every change of a sandbox's state is a compare-and-set: it names what it expects to find. An operation that takes time first puts the
// sandbox into a state on the way (Begin), under a name of its own, and at its end out of it (Finish), if that name is still there: what
// is late, doubled or overtaken finds another name and changes nothing. The database itself adds an event to each change, in the same
// transaction, and refuses to bring back what has ended.
//
// Everything that belongs to a team is asked for with the team. Errors have the kinds of internal/errs.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a database. Its methods may be called from several goroutines.
type Store struct {
	pool    *pgxpool.Pool
	q       *db.Queries
	changed broadcast
}

// Open connects to the database at a URL and brings its schema up to date: of several servers that start at once, one does.
func Open(ctx context.Context, url string) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errs.Field("--database-url", "it is not a PostgreSQL URL", "give one such as postgresql://wrenn@db/wrenn")
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if err := migrate(ctx, pool); err != nil {
		pool.Close()
		return nil, fmt.Errorf("bring the database up to date: %w", kind(err))
	}
	return &Store{pool: pool, q: db.New(pool)}, nil
}

func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	conn := stdlib.OpenDBFromPool(pool)
	defer conn.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, conn, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close gives the connections up.
func (s *Store) Close() { s.pool.Close() }

// Connections are those to the database, for who keeps tables of its own there.
func (s *Store) Connections() *pgxpool.Pool { return s.pool }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.q.Ping(ctx)
	return kind(err)
}

// inTx runs fn in one transaction.
func (s *Store) inTx(ctx context.Context, fn func(q *db.Queries) error) error {
	return kind(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return fn(s.q.WithTx(tx)) }))
}

// kind gives the driver's errors a kind. This is the one place that knows PostgreSQL's codes.
func kind(err error) error {
	var said *pgconn.PgError
	var unreachable *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("no such row: %w", errs.ErrNotFound)
	case errors.As(err, &said) && said.Code == "23505":
		return fmt.Errorf("%s: %w", said.ConstraintName, errs.ErrAlreadyExists)
	case errors.As(err, &said) && said.Code == "23514":
		return fmt.Errorf("%s: %w", said.Message, errs.ErrFailedPrecondition)
	case errors.As(err, &said) && said.Code == "WR001": // see the migration of hosts
		return fmt.Errorf("%s: %w", said.Message, errs.ErrResourceExhausted)
	case errors.As(err, &said) && said.Code == "WR002":
		return fmt.Errorf("%s: %w", said.Message, errs.ErrUnavailable)
	case errors.As(err, &said) && (said.Code == "22021" || said.Code == "22P05"):
		return errs.Field("text", "it has a character that can't be kept", "give UTF-8 without a zero byte")
	case errors.As(err, &said) && (said.Code == "40P01" || said.Code == "40001"): // it got into another one's way, and nothing of it happened
		return fmt.Errorf("the database: %w: %w", err, errs.ErrUnavailable)
	case errors.As(err, &said) && (said.Code[:2] == "57" || said.Code[:2] == "53" || said.Code[:2] == "08"):
		return fmt.Errorf("the database: %w: %w", err, errs.ErrUnavailable)
	case errors.As(err, &unreachable), pgconn.SafeToRetry(err):
		return fmt.Errorf("the database can't be reached: %w: %w", err, errs.ErrUnavailable)
	}
	return err
}

// Tidy removes what has been kept long enough: ended sandboxes, events and tokens after keep, answers to idempotency keys after a day, the audit
// log's records after 90 days.
func (s *Store) Tidy(ctx context.Context, keep time.Duration) error {
	now := time.Now()
	_, err := s.q.DeleteEnded(ctx, now.Add(-keep))
	_, err2 := s.q.DeleteOldEvents(ctx, now.Add(-keep))
	_, err3 := s.q.DeleteOldKeys(ctx, now.Add(-keyTime))
	_, err4 := s.q.DeleteOldTokens(ctx, now.Add(-keep))
	_, err5 := s.q.DeleteOldAudit(ctx, now.Add(-auditTime))
	return kind(errors.Join(err, err2, err3, err4, err5, s.tidyDeliveries(ctx, now.Add(-keep))))
}
