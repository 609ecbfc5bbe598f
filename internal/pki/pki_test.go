package pki_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pki"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(begin)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// party is somebody with a certificate for a name, at a time.
func party(t *testing.T, a *pki.Authority, name string, now *time.Time) *pki.Current {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.IssueOwn(key, name, *now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := &pki.Current{Now: func() time.Time { return *now }}
	c.Set(cert)
	return c
}

// meet connects two parties and returns what each of them made of the other.
func meet(t *testing.T, listen, dial *tls.Config) (listener, dialer error) {
	t.Helper()
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	heard := make(chan error, 1)
	go func() {
		s := tls.Server(one, listen)
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		_ = one.Close()
		heard <- err
	}()
	c := tls.Client(other, dial)
	dialer = c.HandshakeContext(ctx)
	if dialer == nil { // in TLS 1.3 the client hears of its refusal when it reads
		_, dialer = c.Read(make([]byte, 1))
	}
	_ = other.Close()
	return <-heard, dialer
}

func TestWhoIsLetIn(t *testing.T) {
	ours, theirs, now := authority(t), authority(t), begin
	server, host, other := party(t, ours, pki.Server, &now), party(t, ours, "ho-1", &now), party(t, ours, "ho-2", &now)
	foreign := party(t, theirs, pki.Server, &now)
	none := &pki.Current{Now: func() time.Time { return now }}
	for name, c := range map[string]struct {
		listen, dial *tls.Config
		good         bool
	}{
		"a server speaks to a host":          {host.Listen(ours.Roots(), pki.Server), server.Dial(ours.Roots(), "ho-1"), true},
		"a host speaks to a server":          {server.ListenAny(ours.Roots()), host.Dial(ours.Roots(), pki.Server), true},
		"nobody speaks to a server":          {server.ListenAny(ours.Roots()), none.Dial(ours.Roots(), pki.Server), true},
		"a host speaks to a host":            {host.Listen(ours.Roots(), pki.Server), other.Dial(ours.Roots(), "ho-1"), false},
		"nobody speaks to a host":            {host.Listen(ours.Roots(), pki.Server), none.Dial(ours.Roots(), "ho-1"), false},
		"a server meets another host":        {other.Listen(ours.Roots(), pki.Server), server.Dial(ours.Roots(), "ho-1"), false},
		"a host passes for a server":         {other.ListenAny(ours.Roots()), host.Dial(ours.Roots(), pki.Server), false},
		"another authority's server to host": {host.Listen(ours.Roots(), pki.Server), foreign.Dial(ours.Roots(), "ho-1"), false},
		"a host to another authority's":      {foreign.ListenAny(theirs.Roots()), host.Dial(ours.Roots(), pki.Server), false},
		"a pin that fits":                    {server.ListenAny(ours.Roots()), pki.DialPinned(pki.Pin(ours.Certificate()), none.Now), true},
		"a pin that does not fit":            {server.ListenAny(ours.Roots()), pki.DialPinned(pki.Pin(theirs.Certificate()), none.Now), false},
		"a host of the authority, pinned":    {host.ListenAny(ours.Roots()), pki.DialPinned(pki.Pin(ours.Certificate()), none.Now), false},
	} {
		listener, dialer := meet(t, c.listen, c.dial)
		if good := listener == nil && dialer == nil; good != c.good {
			t.Errorf("%s: %v, %v", name, listener, dialer)
		}
	}
}

func TestACertificateEndsAndIsReplaced(t *testing.T) {
	a, now := authority(t), begin
	server, host := party(t, a, pki.Server, &now), party(t, a, "ho-1", &now)
	listen, dial := host.Listen(a.Roots(), pki.Server), server.Dial(a.Roots(), "ho-1")
	good := func() bool {
		listener, dialer := meet(t, listen, dial)
		return listener == nil && dialer == nil
	}
	if now = begin.Add(30 * time.Minute); !good() || host.Due() {
		t.Error("half its time is over, and it is no good or due")
	}
	if now = begin.Add(45 * time.Minute); !good() || !host.Due() {
		t.Error("a quarter of its time is left, and it is no good or not due")
	}
	if now = begin.Add(61 * time.Minute); good() {
		t.Error("its time is over, and it is let in")
	}
	server.Set(party(t, a, pki.Server, &now).Get())
	host.Set(party(t, a, "ho-1", &now).Get())
	if !good() || host.Due() {
		t.Error("the new ones are no good")
	}
}

func TestAnAuthorityIsKept(t *testing.T) {
	a, other := authority(t), authority(t)
	certificate, key, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.ParseAuthority(certificate, key)
	if err != nil || pki.Pin(again.Certificate()) != pki.Pin(a.Certificate()) {
		t.Error(err)
	}
	if _, err := pki.ParseAuthority(other.Certificate(), key); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("with another's certificate: %v", err)
	}
}

func TestTokens(t *testing.T) {
	want, err := pki.NewToken("wrenn.example.org:7444", []byte("certificate"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pki.ParseToken(want.String()); err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	for _, s := range []string{"", pki.TokenPrefix, want.String()[1:], want.String()[:60], want.String() + "!", pki.TokenPrefix + "AAAA"} {
		if _, err := pki.ParseToken(s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	t, err := pki.NewToken("[::1]:7444", []byte("certificate"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(t.String())
	f.Fuzz(func(t *testing.T, s string) {
		got, err := pki.ParseToken(s)
		if err == nil && got.String() != s {
			t.Errorf("%q became %q", s, got.String())
		}
	})
}

func FuzzCheckRequest(f *testing.F) {
	key, err := pki.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Fuzz(func(t *testing.T, request []byte) {
		if p, err := pki.CheckRequest(request); err == nil {
			if _, err := p.Hash(); err != nil {
				t.Error(err)
			}
		}
	})
}
