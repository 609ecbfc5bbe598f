package hosts_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/member"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/hosts"
	"wrenn.dev/wrenn/internal/server/store"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

var quiet = slog.New(slog.DiscardHandler)

// installation is a database, and the clock by which certificates end. Leases are long: a test that wants one over says so to the database.
type installation struct {
	t    *testing.T
	url  string
	late atomic.Int64 // how far its clock is ahead
	team string
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	return &installation{t: t, url: postgrestest.Database(t)}
}

func (i *installation) now() time.Time { return time.Now().Add(time.Duration(i.late.Load())) }

// sql changes what nobody but time could.
func (i *installation) sql(statement string, args ...any) {
	i.t.Helper()
	conn, err := pgx.Connect(context.Background(), i.url)
	if err == nil {
		_, err = conn.Exec(context.Background(), statement, args...)
		_ = conn.Close(context.Background())
	}
	if err != nil {
		i.t.Fatal(err)
	}
}

// server is a control plane of the installation.
type server struct {
	*store.Store
	*control.Control
	hosts   *hosts.Hosts
	address string
	stop    func()
}

// serve starts one that takes hosts at an address: "127.0.0.1:0" is any.
func (i *installation) serve(address string) *server {
	t := i.t
	t.Helper()
	st, err := store.Open(t.Context(), i.url)
	if err != nil {
		t.Fatal(err)
	}
	team, err := st.Team(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	i.team = team.ID
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Store: st, address: l.Addr().String()}
	s.hosts, err = hosts.New(t.Context(), hosts.Config{Store: st, Address: s.address, CertTime: time.Hour, Log: quiet, Now: i.now})
	if err != nil {
		t.Fatal(err)
	}
	s.Control = control.New(st, s.hosts, quiet)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.hosts.Run(ctx) })
	running.Go(func() { s.Watch(ctx) })
	running.Go(func() {
		if err := s.hosts.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	s.stop = sync.OnceFunc(func() {
		s.Wait()
		stop()
		running.Wait()
		s.hosts.Close()
		st.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// token makes one.
func (s *server) token(t *testing.T, valid time.Duration) pki.Token {
	t.Helper()
	secret, _, _, err := s.hosts.Token(t.Context(), valid)
	if err != nil {
		t.Fatal(err)
	}
	token, err := pki.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// machine is a host in memory with the real agent.
type machine struct {
	*sandboxtest.Host
	i     *installation
	t     *testing.T
	agent *hostagent.Agent
	cfg   member.Config
	id    string
	cut   func() // from all servers
}

// machine makes one that has not joined.
func (i *installation) machine(limits quota.Amount) *machine {
	t := i.t
	t.Helper()
	m := &machine{Host: sandboxtest.NewHost(t), i: i, t: t, cut: func() {}}
	var err error
	m.agent, err = hostagent.Start(context.Background(), hostagent.Config{Manager: m.Manager(t), StateDir: m.StateDir, Limits: limits, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	m.cfg = member.Config{Dir: filepath.Join(m.StateDir, "agent"), Log: quiet, Now: i.now}
	t.Cleanup(func() {
		m.cut()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := m.agent.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return m
}

// serve has the machine be a host as its state folder says, until it is cut off.
func (m *machine) serve() {
	m.t.Helper()
	is, err := member.Open(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	m.id = is.Host()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := rpc.Serve(ctx, rpc.Handler(m.agent), 10*time.Millisecond, tls.NewListener(l, is.TLS())); err != nil {
			m.t.Error(err)
		}
	})
	running.Go(func() { is.Run(ctx, member.Reporter(m.agent, l.Addr().String())) })
	m.cut = sync.OnceFunc(func() {
		stop()
		running.Wait()
		is.Close()
	})
}

// host makes a machine that has joined the server and is up.
func (i *installation) host(s *server, limits quota.Amount) *machine {
	i.t.Helper()
	m := i.machine(limits)
	is, err := member.Join(i.t.Context(), m.cfg, s.token(i.t, time.Hour), "")
	if err != nil {
		i.t.Fatal(err)
	}
	is.Close()
	m.serve()
	s.until(i.t, m.id, store.HostUp)
	return m
}

// lost cuts a machine off, and lets the time pass after which it is lost.
func (m *machine) lost(s *server) {
	m.t.Helper()
	m.cut()
	m.i.sql(`UPDATE hosts SET lease_until = now() - interval '1 second' WHERE id = $1`, m.id)
	s.until(m.t, m.id, store.HostLost)
}

const patience = 30 * time.Second

// until waits until a host is in a state.
func (s *server) until(t *testing.T, host, state string) store.Host {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		h, err := s.GetHost(context.Background(), host)
		if err != nil {
			t.Fatal(err)
		}
		if h.State == state {
			return h
		}
		if time.Now().After(deadline) {
			t.Fatalf("host %s is %s, want %s", host, h.State, state)
		}
	}
}

// becomes waits until a sandbox is in a state.
func (s *server) becomes(t *testing.T, team, sandbox, state string) store.Sandbox {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		sb, err := s.Get(context.Background(), team, sandbox)
		if err != nil {
			t.Fatal(err)
		}
		if sb.State == state {
			return sb
		}
		if time.Now().After(deadline) {
			t.Fatalf("sandbox %s is %s (%s), want %s", sandbox, sb.State, sb.Reason, state)
		}
	}
}

// create makes a sandbox.
func (i *installation) create(s *server) store.Sandbox {
	i.t.Helper()
	sb, err := s.Control.Create(i.t.Context(), i.team, control.NewOp(), control.Spec{Template: "base", OnExpiry: "destroy"})
	if err != nil {
		i.t.Fatal(err)
	}
	return sb
}
