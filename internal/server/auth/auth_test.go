package auth

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/store"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

var here = netip.MustParseAddr("192.0.2.1")

func newAuth(t *testing.T) (*Auth, *store.Store, string) {
	t.Helper()
	s, err := store.Open(t.Context(), postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	team, err := s.Team(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	return New(s), s, team.ID
}

func TestAKeysLife(t *testing.T) {
	a, s, team := newAuth(t)
	secret, key, err := a.Issue(t.Context(), Request{Team: team, Name: "n", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(key.Hash), secret) || len(key.Prefix) >= len(secret)/2 {
		t.Errorf("too much is kept: %q", key.Prefix)
	}
	who, err := a.Check(t.Context(), here, secret)
	if err != nil || who.Team != team || who.Key != key.ID {
		t.Fatal(who, err)
	}
	if who.May("read") != nil || !errors.Is(who.May("write"), errs.ErrPermissionDenied) {
		t.Error(who.May("read"), who.May("write"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	if list, _, err := s.ListKeys(t.Context(), team, "", 10); err != nil || len(list) != 1 || list[0].LastUsedAt == nil {
		t.Error(list, err)
	}
	if _, err := s.RevokeKey(t.Context(), team, key.ID, false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Check(t.Context(), here, secret); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("a revoked one: %v", err)
	}
}

func TestWhatIsNotGood(t *testing.T) {
	a, _, team := newAuth(t)
	soon := time.Now().Add(50 * time.Millisecond)
	secret, _, err := a.Issue(t.Context(), Request{Team: team, Name: "n", Scopes: Scopes, ExpiresAt: &soon})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(soon))
	for _, s := range []string{"", "wrenn_", secret, secret[:len(secret)-2], Prefix + strings.Repeat("0", 64), strings.Repeat("x", 1<<16)} {
		if _, err := a.Check(t.Context(), here, s); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Errorf("%.80q: %v", s, err)
		}
	}
	past := time.Now().Add(-time.Hour)
	_, _, expired := a.Issue(t.Context(), Request{Team: team, Scopes: Scopes, ExpiresAt: &past})
	_, _, scope := a.Issue(t.Context(), Request{Team: team, Scopes: []string{"root"}})
	for _, err := range []error{expired, scope} {
		if !errors.Is(err, errs.ErrInvalid) {
			t.Error(err)
		}
	}
}

func TestTriesAreLimited(t *testing.T) {
	a, _, team := newAuth(t)
	secret, _, err := a.Issue(t.Context(), Request{Team: team, Name: "n", Scopes: Scopes})
	if err != nil {
		t.Fatal(err)
	}
	for range maxFailed {
		if _, err := a.Check(t.Context(), here, "wrong"); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	if _, err := a.Check(t.Context(), here, "wrong"); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("after too many: %v", err)
	}
	if _, err := a.Check(t.Context(), netip.MustParseAddr("192.0.2.2"), "wrong"); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("another address: %v", err)
	}
	if _, err := a.Check(t.Context(), here, secret); err != nil {
		t.Errorf("a good key, whatever came before: %v", err)
	}
}

func TestTriesAreForgotten(t *testing.T) {
	now := time.Now()
	tr := newTries(func() time.Time { return now })
	one, neighbour, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")
	for range maxFailed {
		tr.failed(one)
	}
	if tr.failed(neighbour) != window || tr.failed(other) != 0 {
		t.Error("a network of 64 bits is one caller")
	}
	now = now.Add(window)
	if tr.failed(one) != 0 {
		t.Error("it is not forgotten")
	}
	for i := range maxAddresses + 10 {
		tr.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(tr.count) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(tr.count))
	}
}
