package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"
)

// Current is the certificate that a party shows now. It is replaced while connections are made; those that are there stay. Its methods may be
// called from several goroutines.
type Current struct {
	certificate atomic.Pointer[tls.Certificate]
	// Now is the clock; nil is the system's. It is set before anything else is called.
	Now func() time.Time
}

func (c *Current) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// Set replaces the certificate.
func (c *Current) Set(cert *tls.Certificate) { c.certificate.Store(cert) }

// Get is the certificate, nil when there is none yet.
func (c *Current) Get() *tls.Certificate { return c.certificate.Load() }

// Due says whether the certificate is to be replaced by now.
func (c *Current) Due() bool {
	cert := c.Get()
	return cert == nil || !c.now().Before(Renewal(cert))
}

// show is the certificate if it is good; one that is over would only be refused.
func (c *Current) show() *tls.Certificate {
	if cert := c.Get(); cert != nil && c.now().Before(cert.Leaf.NotAfter) {
		return cert
	}
	return &tls.Certificate{}
}

// Listen is for connections from those alone whom the authority gave the name.
func (c *Current) Listen(roots *x509.CertPool, name string) *tls.Config {
	config := c.listen(roots)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.VerifyConnection = func(s tls.ConnectionState) error {
		return verify(s.PeerCertificates, roots, name, c.now(), x509.ExtKeyUsageClientAuth)
	}
	return config
}

// ListenAny is for connections from anybody: who shows a certificate shows one by the authority.
func (c *Current) ListenAny(roots *x509.CertPool) *tls.Config {
	config := c.listen(roots)
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config
}

func (c *Current) listen(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: roots, Time: c.now, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.show(), nil },
		// A session that goes on would not look at certificates again.
		SessionTicketsDisabled: true}
}

// Dial is for connections to those alone whom the authority gave the name.
func (c *Current) Dial(roots *x509.CertPool, name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: name, Time: c.now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.show(), nil }}
}

// DialPinned is for a connection to a server of the authority with the pin, which the caller has nothing else of yet.
func DialPinned(pin [sha256.Size]byte, now func() time.Time) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: Server, Time: now,
		// Instead of by the system's authorities, which are not asked, it is verified below, in the handshake: nothing was sent by then.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			root, err := pinned(s.PeerCertificates, pin)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			roots.AddCert(root)
			return verify(s.PeerCertificates, roots, Server, now(), x509.ExtKeyUsageServerAuth)
		}}
}

// Name is who a peer's certificate stands for, once it was verified; empty when it showed none.
func Name(s *tls.ConnectionState) string {
	if s == nil || len(s.VerifiedChains) == 0 || len(s.VerifiedChains[0][0].DNSNames) != 1 {
		return ""
	}
	return s.VerifiedChains[0][0].DNSNames[0]
}
