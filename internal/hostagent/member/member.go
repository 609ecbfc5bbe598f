// Package member makes this machine a host of a server, and keeps it one.
//
//	m, err := member.Open(dir)                            // as it joined before; ErrNotFound when it did not
//	m, err := member.Join(ctx, member.Config{Dir: dir}, token, "")
//	listener := tls.NewListener(l, m.TLS())               // for servers of its installation alone
//	m.Run(ctx, report)                                    // tells how it is, renews its certificate
//
// The key is made here, never leaves, and is on disk before it is told of: whatever is cut off, joining again with the same token goes on
// where it was. A server that does not answer is asked again and again, and the sandboxes run on.
package member

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/wire"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/statefile"
	pb "wrenn.dev/wrenn/proto/hosts/v1"
	"wrenn.dev/wrenn/proto/hosts/v1/hostspbconnect"
)

const (
	file        = "member.json"
	fileVersion = 1
	maxFile     = 64 << 10
	// callTime bounds one call.
	callTime = 15 * time.Second
	// maxMessage bounds one answer.
	maxMessage = 64 << 10
	// soon and later bound how long it is waited after a call that failed.
	soon, later = 200 * time.Millisecond, 5 * time.Second
)

// state is what is kept of a membership.
type state struct {
	Version int      `json:"version"`
	Server  string   `json:"server"`
	Host    string   `json:"host"` // empty until it has joined
	Key     []byte   `json:"key"`
	Chain   [][]byte `json:"chain"`
	Token   []byte   `json:"token"` // the hash of the one that it joined with
}

// Config is what a membership works with.
type Config struct {
	// Dir is a folder that root alone may enter.
	Dir string
	// Log is told when the server does not answer; nil is slog's default.
	Log *slog.Logger
	// Now is the clock by which certificates end; nil is the system's.
	Now func() time.Time
}

// Member is this machine as a host of a server.
type Member struct {
	cfg     Config
	host    string
	state   state // Run's
	key     pki.Key
	current pki.Current
	roots   *x509.CertPool
	t       *http.Transport
	calls   hostspbconnect.HostsServiceClient
}

func (c Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// Open returns the membership that is in the folder. ErrNotFound when there is none.
func Open(cfg Config) (*Member, error) {
	s, err := load(cfg)
	if err == nil && s.Host == "" {
		err = fmt.Errorf("this machine has not joined a server: %w", errs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return open(cfg, s)
}

func load(cfg Config) (state, error) {
	var s state
	path := filepath.Join(cfg.Dir, file)
	if err := statefile.Read(path, maxFile, &s); err != nil {
		return s, err
	}
	if s.Version != fileVersion {
		return s, fmt.Errorf("%s has version %d, and this program knows %d: %w", path, s.Version, fileVersion, errs.ErrCorrupt)
	}
	return s, nil
}

func (s state) save(cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	return statefile.Write(filepath.Join(cfg.Dir, file), s)
}

func open(cfg Config, s state) (*Member, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	m := &Member{cfg: cfg, host: s.Host, state: s, roots: x509.NewCertPool(), current: pki.Current{Now: cfg.now}}
	var err error
	if m.key, err = pki.ParseKey(s.Key); err != nil {
		return nil, err
	}
	cert, err := pki.Certificate(s.Chain, m.key)
	if err != nil {
		return nil, err
	}
	m.current.Set(cert)
	root, err := x509.ParseCertificate(s.Chain[len(s.Chain)-1])
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate: %w: %w", err, errs.ErrCorrupt)
	}
	m.roots.AddCert(root)
	m.t, m.calls = dial(s.Server, m.current.Dial(m.roots, pki.Server))
	return m, nil
}

func dial(server string, config *tls.Config) (*http.Transport, hostspbconnect.HostsServiceClient) {
	t := &http.Transport{TLSClientConfig: config, Protocols: new(http.Protocols), IdleConnTimeout: 2 * time.Minute}
	t.Protocols.SetHTTP2(true)
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	return t, hostspbconnect.NewHostsServiceClient(&http.Client{Transport: t}, "https://"+server, connect.WithReadMaxBytes(maxMessage))
}

// Join makes this machine a host by a token, at the server that the token names or another address of it. A machine that joined with this
// token before is a host already; with another one it joins anew. ErrUnauthenticated when the server does not take the token, or it is not
// the server that made it.
func Join(ctx context.Context, cfg Config, token pki.Token, server string) (*Member, error) {
	s, err := load(cfg)
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return nil, err
	}
	if hash := token.Hash(); err != nil || string(hash) != string(s.Token) {
		key, err := pki.NewKey()
		if err != nil {
			return nil, err
		}
		s = state{Version: fileVersion, Token: hash}
		if s.Key, err = key.Encode(); err != nil {
			return nil, err
		}
	}
	if server == "" {
		server = token.Address
	}
	if s.Server = server; s.Host != "" {
		return moved(cfg, s)
	}
	if err := s.save(cfg); err != nil { // before anybody knows it
		return nil, err
	}
	if err := s.join(ctx, cfg, token); err != nil {
		return nil, err
	}
	if err := s.save(cfg); err != nil {
		return nil, err
	}
	return open(cfg, s)
}

// moved is a membership whose server may have another address now.
func moved(cfg Config, s state) (*Member, error) {
	if err := s.save(cfg); err != nil {
		return nil, err
	}
	return open(cfg, s)
}

// join asks the server, which is known by the token's pin, and fills the state.
func (s *state) join(ctx context.Context, cfg Config, token pki.Token) error {
	key, err := pki.ParseKey(s.Key)
	if err != nil {
		return err
	}
	request, err := key.Request()
	if err != nil {
		return err
	}
	t, calls := dial(s.Server, pki.DialPinned(token.Pin, cfg.now))
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	resp, err := calls.Join(ctx, connect.NewRequest(&pb.JoinRequest{Secret: token.Secret[:], Request: request}))
	if err != nil {
		return fmt.Errorf("join the server at %s: %w", s.Server, said(err))
	}
	s.Host, s.Chain = resp.Msg.GetHost(), resp.Msg.GetChain()
	_, err = pki.Certificate(s.Chain, key)
	return err
}

// said is an error of a call with its kind. A server that is not the one is none to try again at.
func said(err error) error {
	if errors.Is(err, pki.ErrStranger) {
		return err
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return errors.Join(err, pki.ErrStranger)
	}
	return wire.Decode(err)
}

// Host is this machine's id.
func (m *Member) Host() string { return m.host }

// Ends is when this machine's certificate ends, unless Run replaces it before.
func (m *Member) Ends() time.Time { return m.current.Get().Leaf.NotAfter }

// TLS is for the agent's listener: servers of the installation alone are let in.
func (m *Member) TLS() *tls.Config { return m.current.Listen(m.roots, pki.Server) }

// Close gives connections up.
func (m *Member) Close() { m.t.CloseIdleConnections() }

// Run reports to the server until ctx ends, three times in each lease, and renews the certificate with a third of its time left.
func (m *Member) Run(ctx context.Context, report func(context.Context) (*pb.ReportRequest, error)) {
	wait, failed := soon, false
	for {
		lease, err := m.Report(ctx, report)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.cfg.Log.Warn("the server was not told how this host is; it is tried again, and sandboxes run on", "server", m.state.Server, "error", err)
			wait, failed = min(2*wait, later), true
		default:
			if failed {
				m.cfg.Log.Info("the server knows again how this host is", "server", m.state.Server)
			}
			wait, failed = soon, false
			lease = max(lease/3, soon)
		}
		pause := wait
		if err == nil {
			pause = lease
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// Report is one round of Run. It returns how long the host may be silent now.
func (m *Member) Report(ctx context.Context, report func(context.Context) (*pb.ReportRequest, error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if m.current.Due() {
		if err := m.renew(ctx); err != nil {
			if !m.cfg.now().Before(m.Ends()) {
				return 0, err
			}
			m.cfg.Log.Warn("this host's certificate was not renewed; it is tried again", "ends", m.Ends(), "error", err)
		}
	}
	r, err := report(ctx)
	if err != nil {
		return 0, err
	}
	resp, err := m.calls.Report(ctx, connect.NewRequest(r))
	if err != nil {
		return 0, said(err)
	}
	return time.Duration(resp.Msg.GetLeaseMilliseconds()) * time.Millisecond, nil
}

// renew replaces the certificate, on disk and in the listener; connections that are there go on.
func (m *Member) renew(ctx context.Context) error {
	request, err := m.key.Request()
	if err != nil {
		return err
	}
	resp, err := m.calls.Renew(ctx, connect.NewRequest(&pb.RenewRequest{Request: request}))
	if err != nil {
		return said(err)
	}
	cert, err := pki.Certificate(resp.Msg.GetChain(), m.key)
	if err != nil {
		return err
	}
	root := m.state.Chain[len(m.state.Chain)-1]
	if len(cert.Certificate) != 2 || sha256.Sum256(cert.Certificate[1]) != sha256.Sum256(root) || len(cert.Leaf.DNSNames) != 1 || cert.Leaf.DNSNames[0] != m.host {
		return fmt.Errorf("the new certificate is not this host's: %w", errs.ErrCorrupt)
	}
	s := m.state
	s.Chain = cert.Certificate
	if err := s.save(m.cfg); err != nil {
		return err
	}
	m.state = s
	m.current.Set(cert)
	m.t.CloseIdleConnections() // the next one shows it
	return nil
}
