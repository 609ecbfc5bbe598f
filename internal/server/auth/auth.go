// Package auth says who calls.
//
//	a := auth.New(store)
//	secret, key, err := a.Issue(ctx, auth.Request{Team: team, Name: "laptop", Scopes: []string{"read", "write"}})
//	who, err := a.Check(ctx, remote, secret)     // every request
//	err = a.Allow(who)                           // not too often
//	err = who.May(auth.Write)
//	go a.Run(ctx)                                // writes now and then when keys were used
//
// An API key is "wrenn_" and 32 random bytes in hex. It is told once; what is kept is its SHA-256, which is enough for something that
// nobody can guess. A key is looked up at every request, so that one that is revoked is refused from then on.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// Prefix begins every key: it is found when it lies where it should not.
	Prefix      = "wrenn_"
	secretBytes = 32
	// shownBytes is how much of a key is kept to know it again by.
	shownBytes = len(Prefix) + 6
	// writeUsed is how often it is written when keys were used.
	writeUsed = time.Minute
)

// Auth checks API keys. Its methods may be called from several goroutines.
type Auth struct {
	store *store.Store
	tries *tries
	rates *rates

	mu   sync.Mutex
	used map[string]time.Time
}

// New returns one that knows the store's keys.
func New(s *store.Store) *Auth {
	return &Auth{store: s, tries: newTries(time.Now), rates: newRates(time.Now), used: map[string]time.Time{}}
}

// Identity is a caller.
type Identity struct {
	Team, Key string
	scopes    []string
	team, key store.Limits
}

// May is an ErrPermissionDenied unless the caller's key has the scope.
func (i Identity) May(scope string) error {
	if slices.Contains(i.scopes, scope) {
		return nil
	}
	return fmt.Errorf("this API key has the scopes %s, and this needs %s: %w", strings.Join(i.scopes, ", "), scope, errs.ErrPermissionDenied)
}

// Request is a key that is asked for.
type Request struct {
	Team, Name string
	Scopes     []string
	ExpiresAt  *time.Time // nil is never
	Limits     store.Limits
}

// Issue makes a key and returns it, once, with what is kept of it.
func (a *Auth) Issue(ctx context.Context, r Request) (string, store.Key, error) {
	if err := checkScopes(r.Scopes); err != nil {
		return "", store.Key{}, err
	}
	if r.ExpiresAt != nil && !r.ExpiresAt.After(time.Now()) {
		return "", store.Key{}, errs.Field("expires_at", "it has passed", "give a time to come, or leave it out")
	}
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // never fails, see its documentation
	secret := Prefix + hex.EncodeToString(raw)
	hash := sha256.Sum256([]byte(secret))
	l := r.Limits
	k, err := a.store.AddKey(ctx, store.Key{TeamID: r.Team, Name: r.Name, Prefix: secret[:shownBytes], Hash: hash[:], Scopes: r.Scopes,
		ExpiresAt: r.ExpiresAt, MaxSandboxes: l.Sandboxes, MaxVcpus: l.VCPUs, MaxMemoryMib: l.MemoryMiB, MaxDiskBytes: l.DiskBytes,
		MaxSnapshots: l.Snapshots, RequestsPerSecond: l.PerSecond, Burst: l.Burst})
	return secret, k, err
}

// Check says whose key it is. ErrUnauthenticated, without saying which of them it is, for one that is not there, is revoked or has expired;
// ErrResourceExhausted instead for an address that has given too many of those. A good key always passes: behind a proxy, all
// callers have one address, and a bad one among them must not shut the others out.
func (a *Auth) Check(ctx context.Context, from netip.Addr, secret string) (Identity, error) {
	k, team, err := a.find(ctx, secret)
	if errors.Is(err, errs.ErrUnauthenticated) {
		if wait := a.tries.failed(from); wait > 0 {
			err = errs.After(wait, fmt.Errorf("too many bad API keys came from this address; wait a minute: %w", errs.ErrResourceExhausted))
		}
	}
	if err != nil {
		return Identity{}, err
	}
	a.mu.Lock()
	a.used[k.ID] = time.Now()
	a.mu.Unlock()
	return Identity{Team: k.TeamID, Key: k.ID, scopes: k.Scopes, team: store.LimitsOfTeam(team), key: store.LimitsOfKey(k)}, nil
}

// Allow counts a request. ErrResourceExhausted, with the time after which another one may come, when the caller's team or key has asked
// too often.
func (a *Auth) Allow(who Identity) error {
	return a.rates.take(owner{"team", who.Team, who.team}, owner{"API key", who.Key, who.key})
}

// find returns the key that a secret is, and its team, if they are good.
func (a *Auth) find(ctx context.Context, secret string) (store.Key, store.Team, error) {
	bad := fmt.Errorf("the API key is missing or not good: %w", errs.ErrUnauthenticated)
	rest, ok := strings.CutPrefix(secret, Prefix)
	if raw, err := hex.DecodeString(rest); !ok || err != nil || len(raw) != secretBytes {
		return store.Key{}, store.Team{}, bad
	}
	hash := sha256.Sum256([]byte(secret))
	k, team, err := a.store.KeyByHash(ctx, hash[:])
	if errors.Is(err, errs.ErrNotFound) {
		return store.Key{}, store.Team{}, bad
	}
	if err != nil {
		return store.Key{}, store.Team{}, err
	}
	expired := k.ExpiresAt != nil && !k.ExpiresAt.After(time.Now())
	if subtle.ConstantTimeCompare(hash[:], k.Hash) != 1 || k.RevokedAt != nil || team.DeletedAt != nil || expired {
		return store.Key{}, store.Team{}, bad
	}
	return k, team, nil
}

// Run writes when keys were used, until ctx ends and then once more. It returns what the last writing said; one before it that failed is made up
// for by the next.
func (a *Auth) Run(ctx context.Context) error {
	tick := time.NewTicker(writeUsed)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = a.write(ctx)
		case <-ctx.Done():
			return cleanup.Do(ctx, a.write)
		}
	}
}

func (a *Auth) write(ctx context.Context) error {
	a.mu.Lock()
	used := a.used
	a.used = map[string]time.Time{}
	a.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	err := a.store.KeysUsed(ctx, used)
	if err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		for key, at := range used {
			if at.After(a.used[key]) {
				a.used[key] = at
			}
		}
	}
	return err
}
