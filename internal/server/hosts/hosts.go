// Package hosts are the machines that run sandboxes, as a server sees them: they join, say how they are, are lost when they say nothing, and
// are spoken to.
//
//	h, err := hosts.New(ctx, hosts.Config{Store: s})
//	h.Own(host, client.Unix(socket))                  // the agent on the server's own machine
//	token, err := h.Token(ctx, time.Hour)             // for one other machine
//	go h.Serve(ctx, listener)                         // where those join and report
//	go h.Run(ctx)                                     // leases, the own host's reports, certificates
//	agent, err := h.Agent(ctx, id)                    // who speaks to a host's agent
//
// All that is known is in the database: any number of servers do this side by side, and what one learns the others go by.
//
// A server is known to the hosts, and they to it, by certificates of the installation's authority (internal/pki), whose key is in the
// database. Certificates are short-lived, and replaced without a restart.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/server/store/db"
)

const (
	// DefaultLease is how long a host may be silent.
	DefaultLease = 30 * time.Second
	// certTime is how long certificates are good.
	certTime = 24 * time.Hour
	// refreshTime is how old what is known of the hosts may be.
	refreshTime = time.Second
)

// Config is what Hosts work with.
type Config struct {
	Store *store.Store
	// Address is where hosts find the server, host:port; it is in tokens. Without one there are no tokens.
	Address string
	// Lease is how long a host may be silent; zero is DefaultLease.
	Lease time.Duration
	// Observe, unless nil, is told of each call of a joined host's agent.
	Observe func(client.Call)
	// CertTime is how long certificates are good; zero is a day.
	CertTime time.Duration
	// Log is told what happens to hosts; nil is slog's default.
	Log *slog.Logger
	// Now is the clock by which certificates end; nil is the system's. Leases end by the database's.
	Now func() time.Time
}

// Hosts are the hosts of an installation. Its methods may be called from several goroutines.
type Hosts struct {
	cfg       Config
	authority *pki.Authority
	key       pki.Key
	current   pki.Current

	mu     sync.Mutex
	read   time.Time // when known was read
	known  map[string]*entry
	own    string
	socket *client.Client
}

// entry is a host and who speaks to its agent.
type entry struct {
	db.HostsToWatchRow
	client *client.Client
}

// New reads the installation's authority, or makes it in a new database.
func New(ctx context.Context, cfg Config) (*Hosts, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(client.Call) {}
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.CertTime == 0 {
		cfg.CertTime = certTime
	}
	h := &Hosts{cfg: cfg, current: pki.Current{Now: cfg.Now}, known: map[string]*entry{}}
	certificate, key, err := cfg.Store.Authority(ctx, func() (certificate, key []byte, err error) {
		a, err := pki.NewAuthority(cfg.Now())
		if err != nil {
			return nil, nil, err
		}
		return a.Encode()
	})
	if err != nil {
		return nil, err
	}
	if h.authority, err = pki.ParseAuthority(certificate, key); err != nil {
		return nil, err
	}
	if h.key, err = pki.NewKey(); err != nil {
		return nil, err
	}
	return h, h.renew()
}

// renew replaces the server's certificate, which it makes itself.
func (h *Hosts) renew() error {
	cert, err := h.authority.IssueOwn(h.key, pki.Server, h.cfg.Now(), h.cfg.CertTime)
	if err == nil {
		h.current.Set(cert)
	}
	return err
}

// Own makes a host the server's own: its agent is reached by the client, on this machine, and does not report itself. It is called before
// anything else, and the client stays the caller's.
func (h *Hosts) Own(host string, c *client.Client) { h.own, h.socket = host, c }

// Close gives connections up.
func (h *Hosts) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.known {
		e.close(h)
	}
	h.known = map[string]*entry{}
}

func (e *entry) close(h *Hosts) {
	if e.client != nil && e.client != h.socket {
		e.client.Close()
	}
}

// Token makes what lets one machine join within a time. It is told once.
func (h *Hosts) Token(ctx context.Context, valid time.Duration) (secret, id string, expires time.Time, err error) {
	if h.cfg.Address == "" {
		return "", "", time.Time{}, fmt.Errorf("this server takes no hosts; it is started with --hosts-listen to take some: %w", errs.ErrFailedPrecondition)
	}
	t, err := pki.NewToken(h.cfg.Address, h.authority.Certificate())
	if err != nil {
		return "", "", time.Time{}, err
	}
	id, expires, err = h.cfg.Store.AddToken(ctx, t.Hash(), valid)
	return t.String(), id, expires, err
}

// Agent returns who speaks to a host's agent. ErrUnavailable when the host is lost or can't be reached from this server.
func (h *Hosts) Agent(ctx context.Context, host string) (*client.Client, error) {
	e, err := h.get(ctx, host)
	switch {
	case err != nil:
		return nil, err
	case e.State == store.HostLost:
		return nil, fmt.Errorf("host %s has been silent past its lease, since %s: %w", host, e.LeaseUntil.UTC().Format(time.RFC3339), errs.ErrUnavailable)
	case e.client == nil && e.KeyHash == nil:
		return nil, fmt.Errorf("host %s is reached by the server on its machine alone: %w", host, errs.ErrUnavailable)
	case e.client == nil:
		return nil, fmt.Errorf("host %s has not said yet where it is: %w", host, errs.ErrUnavailable)
	}
	return e.client, nil
}

// Draining says whether a host is to get no new sandboxes.
func (h *Hosts) Draining(ctx context.Context, host string) (bool, error) {
	e, err := h.get(ctx, host)
	return err == nil && e.Draining, err
}

// Reachable are the hosts that this server can ask, and whether each is new or back: then all that it has is to be looked at.
func (h *Hosts) Reachable(ctx context.Context) (map[string]bool, error) {
	if err := h.refresh(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	list := map[string]bool{}
	for id, e := range h.known {
		if e.client != nil && e.State != store.HostLost {
			list[id] = e.State == store.HostJoining
		}
	}
	return list, nil
}

// get is a host as it was a moment ago.
func (h *Hosts) get(ctx context.Context, host string) (entry, error) {
	for try := range 2 {
		h.mu.Lock()
		e, fresh := h.known[host], time.Since(h.read) < refreshTime
		var is entry
		if e != nil {
			is = *e
		}
		h.mu.Unlock()
		if e != nil && (fresh || try > 0) {
			return is, nil
		}
		if err := h.refresh(ctx); err != nil {
			return entry{}, err
		}
	}
	return entry{}, fmt.Errorf("host %q is none, or was removed: %w", host, errs.ErrUnavailable)
}

// refresh reads which hosts there are.
func (h *Hosts) refresh(ctx context.Context) error {
	began := time.Now()
	rows, err := h.cfg.Store.HostsToWatch(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if began.Before(h.read) {
		return nil // somebody who began later was faster
	}
	h.read = began
	known := make(map[string]*entry, len(rows))
	for _, row := range rows {
		e := &entry{HostsToWatchRow: row}
		if before := h.known[row.ID]; before != nil && before.Address == row.Address {
			e.client = before.client
			before.client = nil
		}
		if e.client == nil {
			e.client = h.dial(row)
		}
		known[row.ID] = e
	}
	for _, e := range h.known { // those that are gone or moved
		e.close(h)
	}
	h.known = known
	return nil
}

// dial is a client of a host's agent, nil when it can't be reached from here. It connects when it is used.
func (h *Hosts) dial(row db.HostsToWatchRow) *client.Client {
	switch {
	case row.ID == h.own:
		return h.socket
	case row.KeyHash == nil, row.Address == "":
		return nil
	}
	return client.TLS(row.Address, h.current.Dial(h.authority.Roots(), row.ID), client.Observe(h.cfg.Observe))
}

// Ready is nil when a host is up, and else an ErrUnavailable that says what there is.
func (h *Hosts) Ready(ctx context.Context) error {
	if err := h.refresh(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var others []string
	for id, e := range h.known {
		if e.State == store.HostUp {
			return nil
		}
		others = append(others, id+" is "+e.State)
	}
	if len(others) == 0 {
		return fmt.Errorf("no host has joined: %w", errs.ErrUnavailable)
	}
	return errors.Join(fmt.Errorf("no host is up: %s", strings.Join(others, ", ")), errs.ErrUnavailable)
}
