package postgres

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder is one that PostgreSQL's user can reach, with a short name, as t.TempDir has neither.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wrenn-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "postgres")
}

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeServer(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// query asks for one text.
func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var got string
	if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

// write leaves something that must be there later.
func write(t *testing.T, s *Server) {
	t.Helper()
	if got := query(t, s, "WITH made AS (SELECT set_config('x.y', 'z', false)) SELECT current_user::text FROM made"); got != role {
		t.Errorf("the role is %q", got)
	}
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('here')"); err != nil {
		t.Fatal(err)
	}
}

func TestItGoesOnWhereItWas(t *testing.T) {
	dir := folder(t)
	s := start(t, dir)
	write(t, s)
	if got := query(t, s, "SHOW listen_addresses"); got != "" {
		t.Errorf("it listens on %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "socket"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("who may enter the socket's folder: %v %v", info.Mode(), err)
	}
	if _, err := Start(t.Context(), Config{Dir: dir}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a second one on the folder: %v", err)
	}
	closeServer(t, s)
	<-s.Done()
	s = start(t, dir)
	defer closeServer(t, s)
	if got := query(t, s, "SELECT word FROM kept"); got != "here" {
		t.Errorf("got %q", got)
	}
}

// TestWhatRunsOnIsStopped is a process of ours that was killed: nobody has the lock, and its postgres runs.
func TestWhatRunsOnIsStopped(t *testing.T) {
	dir := folder(t)
	orphan := start(t, dir)
	write(t, orphan)
	orphan.lock.Close()
	s := start(t, dir)
	defer closeServer(t, s)
	<-orphan.Done()
	if got := query(t, s, "SELECT word FROM kept"); got != "here" {
		t.Errorf("got %q", got)
	}
}

// TestAfterACrash: the server dies in the midst of things, and its pid goes to another process.
func TestAfterACrash(t *testing.T) {
	dir := folder(t)
	s := start(t, dir)
	write(t, s)
	if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Close(t.Context()); err == nil {
		t.Error("a killed server ended well")
	}
	path := filepath.Join(dir, "data", "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	defer closeServer(t, s)
	if got := query(t, s, "SELECT word FROM kept"); got != "here" {
		t.Errorf("got %q", got)
	}
}

func TestAHalfMadeFolderIsMadeAnew(t *testing.T) {
	dir := folder(t)
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	closeServer(t, start(t, dir))
	if _, err := os.Stat(filepath.Join(dir, "data.new")); !errors.Is(err, os.ErrNotExist) {
		t.Error("what was half made is still there")
	}
}

// data makes a data folder of a release with nothing in it.
func data(t *testing.T, dir, release string) {
	t.Helper()
	who, err := runAs("")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "data")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "PG_VERSION"), []byte(release+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := own(path, who); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	other, broken := folder(t), folder(t)
	data(t, other, "9")
	data(t, broken, strconv.Itoa(installations("")[0].major))
	for _, c := range []struct {
		name string
		cfg  Config
		kind error
		says string
	}{
		{"another release's data", Config{Dir: other}, errs.ErrFailedPrecondition, "install postgresql-9"},
		{"no data in it", Config{Dir: broken}, errs.ErrUnavailable, "log ends with"},
		{"no programs", Config{Dir: folder(t), Bin: t.TempDir()}, errs.ErrInvalid, "apt-get install postgresql"},
		{"a long name", Config{Dir: folder(t) + strings.Repeat("/long", 20)}, errs.ErrInvalid, "shorter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := Start(ctx, c.cfg); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		if who, err := runAs("whoever"); who != nil || err != nil {
			t.Errorf("an ordinary user is itself: %v %v", who, err)
		}
		return
	}
	for _, name := range []string{"nobody-has-this-name", "root"} {
		if _, err := runAs(name); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
