package hooks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/publicaddr"
)

// Targets says where messages may go. Who gives a URL is not trusted with what this server can reach: its own machine, the network behind it, a
// cloud's metadata service.
type Targets struct {
	// Private allows addresses that are not of the public internet, and URLs without TLS.
	Private bool
	// Resolver finds a name's addresses; nil is the system's.
	Resolver *net.Resolver
}

const (
	maxURL      = 2048
	resolveTime = 5 * time.Second
)

// Check refuses a URL that messages may not go to, as far as it can be known now: the address that a name has later is looked at when a
// connection to it is made. It fails with a FieldError for "url".
func (t Targets) Check(ctx context.Context, raw string) error {
	bad := func(problem, fix string) error { return errs.Field("url", problem, fix) }
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || u.Host == "" || u.Hostname() == "" || u.Opaque != "" {
		return bad("it is none", "give one such as https://example.com/wrenn")
	}
	switch {
	case u.Scheme != "https" && !(u.Scheme == "http" && t.Private):
		return bad(fmt.Sprintf("it begins with %.20q", u.Scheme), "give an https URL")
	case u.User != nil:
		return bad("it has a user", "leave it out: messages are signed")
	case u.Fragment != "":
		return bad("it has a fragment", "leave it out")
	case t.Private:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	addrs, err := t.resolver().LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil || len(addrs) == 0 {
		return bad(fmt.Sprintf("%.255q has no address", u.Hostname()), "give a host that the public internet knows")
	}
	for _, a := range addrs {
		if !publicaddr.Is(a) {
			return bad(fmt.Sprintf("%.255q is at an address that is not of the public internet", u.Hostname()), "give a host that the public internet reaches")
		}
	}
	return nil
}

func (t Targets) resolver() *net.Resolver {
	if t.Resolver != nil {
		return t.Resolver
	}
	return net.DefaultResolver
}

// errPrivate is a connection that was refused before it was made.
var errPrivate = errors.New("the host is at an address that is not of the public internet")

// control is asked before each connection, with the address that the name was resolved to: what the name meant at any other time is nothing to it.
func (t Targets) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if t.Private {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") || !publicaddr.Is(to.Addr()) {
		return errPrivate
	}
	return nil
}

// What a receiver may take.
const (
	dialTime       = 10 * time.Second
	attemptTime    = 15 * time.Second
	idleTime       = 30 * time.Second
	maxHeaderBytes = 16 << 10
	// maxAnswer bounds what is read of an answer's body, so that its connection can be used again; nothing is done with it.
	maxAnswer = 16 << 10
)

// client sends to targets alone: a redirect is an answer like any other, and a proxy that the environment names is passed over, because it would be
// it that connects.
func (t Targets) client() *http.Client {
	dialer := &net.Dialer{Timeout: dialTime, Resolver: t.resolver(), ControlContext: t.control}
	return &http.Client{
		Timeout:       attemptTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: nil, DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTime,
			MaxResponseHeaderBytes: maxHeaderBytes, MaxIdleConnsPerHost: perWebhook, MaxIdleConns: atOnce,
			IdleConnTimeout: idleTime, DisableCompression: true},
	}
}
