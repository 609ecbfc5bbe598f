// Package postgres runs a private PostgreSQL: the host's own programs on a data folder and a unix socket of ours, without TCP.
//
//	db, err := postgres.Start(ctx, postgres.Config{Dir: "/var/lib/wrenn-postgres"})
//	pool, err := pgxpool.New(ctx, db.URL())
//	…
//	err = db.Close(ctx)                    // the data stays
//
// The folder holds "data" (PostgreSQL's own), "socket", "log" (what the server says) and "lock". There is one Server of a folder at a
// time. Start brings a folder to life from whatever state it is in: without data, after a clean stop, after a crash of the machine, and
// when a process of ours was killed and its postgres runs on: that one is stopped first.
//
// PostgreSQL refuses to run as root: then it runs as the user "postgres", which its packages make. A uid without a name, as the machines'
// processes have, will not do: initdb refuses it. Who can enter the socket's folder, which is that user and root, needs no password.
//
// It is a leaf package but for other leaves.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/inotify"
)

// Config says where the server lives.
type Config struct {
	// Dir is the folder of all that it has; it is made. Whoever runs the server must be able to enter the folders above it.
	Dir string
	// Bin is the folder of postgres and initdb; empty finds the newest that fits the data.
	Bin string
	// User is who it runs as when this process is root; empty is DefaultUser.
	User string
}

// DefaultUser is made by PostgreSQL's packages.
const DefaultUser = "postgres"

// role owns everything in the database; database is the one that initdb makes.
const (
	role     = "wrenn"
	database = "postgres"
)

// Server is a PostgreSQL that runs.
type Server struct {
	cfg   Config
	lock  *os.File
	cmd   *exec.Cmd
	done  chan struct{}
	ended error // why, once done is closed
}

// paths in the folder.
func (c *Config) data() string   { return filepath.Join(c.Dir, "data") }
func (c *Config) socket() string { return filepath.Join(c.Dir, "socket") }
func (c *Config) log() string    { return filepath.Join(c.Dir, "log") }

// Start returns when the server takes connections. The context bounds the start alone.
//
// Errors: a FieldError when PostgreSQL or its user is missing or the folder can't be used; ErrFailedPrecondition when the data are of a
// release that is not installed; ErrUnavailable when another process has the folder or the server does not come up, with its last words.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	who, err := runAs(cfg.User)
	if err != nil {
		return nil, err
	}
	if err := cfg.prepare(who); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, done: make(chan struct{})}
	if s.lock, err = lock(filepath.Join(cfg.Dir, "lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := stopOrphans(ctx, cfg.data()); err != nil {
		return nil, err
	}
	bin, err := cfg.programs()
	if err != nil {
		return nil, err
	}
	if err := cfg.initialize(ctx, bin, who); err != nil {
		return nil, err
	}
	return s, s.launch(ctx, bin, who)
}

// lock is given back by the kernel when the process ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process has %s: %w: %w", filepath.Dir(path), err, errs.ErrUnavailable), f.Close())
	}
	return f, nil
}

// launch starts postgres and waits until it says that it is ready.
func (s *Server) launch(ctx context.Context, bin string, who *syscall.Credential) error {
	out, err := openLog(s.cfg.log(), who)
	if err != nil {
		return err
	}
	defer out.Close()
	watch, err := inotify.New(s.cfg.data(), inotify.Created|inotify.Modified)
	if err != nil {
		return err
	}
	defer watch.Close()
	// It must outlive the context and take no Ctrl-C that is meant for its parent: Close ends it. It compiles no queries to machine code: ours
	// are short, and where its parent may not make memory executable, it may not either.
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", s.cfg.data(), "-c", "listen_addresses=", //nolint:gosec // the host's own program
		"-c", "unix_socket_directories="+s.cfg.socket(), "-c", "unix_socket_permissions=0700", "-c", "logging_collector=off", "-c", "jit=off")
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr, s.cmd.Env = s.cfg.data(), out, out, environment()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: who}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	ready, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		s.ended = s.cmd.Wait()
		cancel(errors.New("it ended"))
		close(s.done)
	}()
	err = watch.Until(ready, func() (bool, error) { return isReady(s.cfg.data(), s.cmd.Process.Pid), context.Cause(ready) })
	if err == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // it takes no harm: that is a crash to it, and it has promised nothing to anybody
	<-s.done
	return fmt.Errorf("postgres does not start: %w: %w; %s ends with: %s", err, errs.ErrUnavailable, s.cfg.log(), tail(s.cfg.log()))
}

// URL is for clients: by the socket, as the role that owns everything.
func (s *Server) URL() string {
	q := url.Values{"host": {s.cfg.socket()}}
	return (&url.URL{Scheme: "postgresql", User: url.User(role), Path: "/" + database, RawQuery: q.Encode()}).String()
}

// Done is closed when the server has ended: by Close, or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Close cuts clients off, has the server write its state and end, and waits for that. When ctx ends first it is ended at once; the next
// start recovers what it had promised, as after a crash.
func (s *Server) Close(ctx context.Context) error {
	_ = s.cmd.Process.Signal(syscall.SIGINT) // PostgreSQL's "fast shutdown"; an error says that it has ended
	var err error
	select {
	case <-s.done:
		err = s.ended
	case <-ctx.Done():
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		<-s.done
		err = fmt.Errorf("postgres was cut off: %w", context.Cause(ctx))
	}
	return errors.Join(err, s.lock.Close())
}
