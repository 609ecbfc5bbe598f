package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Host is a machine that runs sandboxes. Its KeyHash is nil when it is a server's own, whose agent is behind a socket.
type Host = db.Host

// Template is what a host has to start sandboxes from, with the sizes that they get unless they ask for others.
type Template = db.HostTemplate

// The states of a host.
const (
	HostJoining = "joining" // it is known, and what it has was not looked at since it came, or came back
	HostUp      = "up"      // sandboxes are placed on it, unless it drains
	HostLost    = "lost"    // it was silent past its lease
	HostRemoved = "removed"
)

// Host returns the host whose agent is behind a socket, at an address such as "unix:///run/wrenn/agent.sock"; it makes it if there is none.
func (s *Store) Host(ctx context.Context, address string) (Host, error) {
	h, err := s.q.LocalHost(ctx, db.LocalHostParams{ID: id.NewOf(id.Host), Address: address})
	return h, kind(err)
}

// GetHost returns a host, also one that was removed. ErrNotFound when there is none.
func (s *Store) GetHost(ctx context.Context, host string) (Host, error) {
	h, err := s.q.GetHost(ctx, host)
	return h, found(err, "host", host)
}

// ListHosts returns a page of the hosts, by id, and the cursor of the next page, empty on the last.
func (s *Store) ListHosts(ctx context.Context, cursor string, limit int) ([]Host, string, error) {
	list, err := s.q.ListHosts(ctx, db.ListHostsParams{After: cursor, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(h Host) string { return h.ID })
	return list, next, kind(err)
}

// HostsToWatch are all hosts, of which a server goes by these columns alone.
func (s *Store) HostsToWatch(ctx context.Context) ([]db.HostsToWatchRow, error) {
	list, err := s.q.HostsToWatch(ctx)
	return list, kind(err)
}

// Templates are those of the hosts that are up, each name once.
func (s *Store) Templates(ctx context.Context) ([]Template, error) {
	list, err := s.q.TemplatesOfHosts(ctx)
	return list, kind(err)
}

// HostsOfTemplate are the hosts that are up and have a template.
func (s *Store) HostsOfTemplate(ctx context.Context, name string) ([]string, error) {
	list, err := s.q.HostsOfTemplate(ctx, name)
	return list, kind(err)
}

// ForgetTemplate writes down that a host has a template no more, before it reports so.
func (s *Store) ForgetTemplate(ctx context.Context, host, name string) error {
	return kind(s.q.DeleteTemplateOfHost(ctx, db.DeleteTemplateOfHostParams{HostID: host, Name: name}))
}

// TemplatesOf are a host's, by name.
func (s *Store) TemplatesOf(ctx context.Context, host string) ([]Template, error) {
	list, err := s.q.TemplatesOfHost(ctx, host)
	return list, kind(err)
}

// Report is what a host says of itself. Zero limits are none.
type Report struct {
	Address, Version, Boot string
	MaxSandboxes, MaxVCPUs int32
	MaxMemoryMiB           int64
	MaxDiskBytes           int64 // what snapshots take is not in it
	Templates              []Template
}

// Report writes down what a host says and prolongs its lease. One that was lost is joining again. ErrPermissionDenied when it was removed.
func (s *Store) Report(ctx context.Context, host string, r Report, lease time.Duration) (Host, error) {
	var h Host
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		h, err = q.Report(ctx, db.ReportParams{Lease: lease, Address: r.Address, Version: words(r.Version), Boot: words(r.Boot),
			MaxSandboxes: r.MaxSandboxes, MaxVcpus: r.MaxVCPUs, MaxMemoryMib: r.MaxMemoryMiB, MaxDiskBytes: r.MaxDiskBytes, ID: host})
		if err := kind(err); errors.Is(err, errs.ErrNotFound) {
			return fmt.Errorf("host %s was removed: %w", host, errs.ErrPermissionDenied)
		} else if err != nil {
			return err
		}
		return putTemplates(ctx, q, host, r.Templates)
	})
	return h, err
}

// putTemplates writes what changed, which is seldom anything.
func putTemplates(ctx context.Context, q *db.Queries, host string, list []Template) error {
	for i := range list {
		list[i].HostID = host
	}
	slices.SortFunc(list, func(a, b Template) int { return strings.Compare(a.Name, b.Name) })
	list = slices.CompactFunc(list, func(a, b Template) bool { return a.Name == b.Name })
	have, err := q.TemplatesOfHost(ctx, host)
	if err != nil || slices.Equal(have, list) {
		return err
	}
	if err := q.DeleteTemplates(ctx, host); err != nil {
		return err
	}
	for _, t := range list {
		if err := q.InsertTemplate(ctx, db.InsertTemplateParams(t)); err != nil {
			return err
		}
	}
	return nil
}

// HostSettled says that all which a host has was looked at: from now on it is up, if it was joining.
func (s *Store) HostSettled(ctx context.Context, host string) error {
	return kind(s.q.HostSettled(ctx, host))
}

// Drain keeps new sandboxes from a host, or lets them onto it again. Those that it has go on.
func (s *Store) Drain(ctx context.Context, host string, draining bool) (Host, error) {
	h, err := s.q.SetDraining(ctx, db.SetDrainingParams{Draining: draining, ID: host})
	return h, found(err, "host", host)
}

// RemoveHost makes a host one that is let in no more. ErrFailedPrecondition, with them, when it has sandboxes or snapshots, and for a
// server's own host. Sandboxes that were lost with it stay so.
func (s *Store) RemoveHost(ctx context.Context, host string) error {
	return s.inTx(ctx, func(q *db.Queries) error {
		h, err := q.LockHost(ctx, host) // no sandbox is inserted for it meanwhile
		if err := found(err, "host", host); err != nil || h.State == HostRemoved {
			return err
		}
		if h.KeyHash == nil {
			return fmt.Errorf("host %s is a server's own and did not join: %w", host, errs.ErrFailedPrecondition)
		}
		users, err := q.UsersOfHost(ctx, host)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fmt.Errorf("host %s is used by %s: %w", host, strings.Join(users, ", "), errs.ErrFailedPrecondition)
		}
		if err := q.LosePermanently(ctx, host); err != nil {
			return err
		}
		if err := q.DeleteTemplates(ctx, host); err != nil {
			return err
		}
		_, err = q.RemoveHost(ctx, host)
		return err
	})
}

// Authority returns the certificate (DER) and key (PKCS #8) of the installation's authority. In a new database it is what fresh makes: of
// several servers that start at once, one's.
func (s *Store) Authority(ctx context.Context, fresh func() (certificate, key []byte, err error)) (certificate, key []byte, err error) {
	a, err := s.q.GetAuthority(ctx)
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		if certificate, key, err = fresh(); err != nil {
			return nil, nil, err
		}
		if err := s.q.InsertAuthority(ctx, db.InsertAuthorityParams{Certificate: certificate, Key: key}); err != nil {
			return nil, nil, kind(err)
		}
		a, err = s.q.GetAuthority(ctx)
	}
	return a.Certificate, a.Key, kind(err)
}

// AddToken keeps a token, given as its hash, by which one host may join within a time. It returns the token's id and its end.
func (s *Store) AddToken(ctx context.Context, hash []byte, valid time.Duration) (token string, expires time.Time, err error) {
	t, err := s.q.InsertToken(ctx, db.InsertTokenParams{ID: id.NewOf(id.JoinToken), Hash: hash, Valid: valid})
	return t.ID, t.ExpiresAt, kind(err)
}

// Join makes a host of who has a token, given as its hash, and a key, given as its hash. The token is good for one key: who asks again
// with both, because an answer did not come, gets the same host. ErrUnauthenticated for any other use.
func (s *Store) Join(ctx context.Context, token, keyHash []byte, lease time.Duration) (Host, error) {
	refused := fmt.Errorf("the token is none, or is used or expired: %w", errs.ErrUnauthenticated)
	var h Host
	err := s.inTx(ctx, func(q *db.Queries) error {
		t, err := q.LockToken(ctx, token)
		if err := kind(err); errors.Is(err, errs.ErrNotFound) {
			return refused
		} else if err != nil {
			return err
		}
		if t.HostID != nil {
			h, err = q.HostByKey(ctx, keyHash)
			if errors.Is(kind(err), errs.ErrNotFound) || err == nil && h.ID != *t.HostID {
				return refused
			}
			return err
		}
		if !t.Good {
			return refused
		}
		if h, err = q.InsertHost(ctx, db.InsertHostParams{ID: id.NewOf(id.Host), KeyHash: keyHash, Lease: lease}); err != nil {
			return err
		}
		return q.UseToken(ctx, db.UseTokenParams{HostID: h.ID, ID: t.ID})
	})
	return h, err
}

// HostOfKey returns the host that has a key, given as its hash. ErrPermissionDenied when none has, or it was removed.
func (s *Store) HostOfKey(ctx context.Context, keyHash []byte) (Host, error) {
	h, err := s.q.HostByKey(ctx, keyHash)
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return h, fmt.Errorf("no host has this key, or it was removed: %w", errs.ErrPermissionDenied)
	}
	return h, err
}
