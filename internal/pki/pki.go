// Package pki is the private authority of an installation: servers and hosts know each other by its certificates.
//
//	a, err := pki.NewAuthority(now)                              // once in an installation's life
//	key, err := pki.NewKey()                                     // each party makes its own, which never leaves it
//	request, err := key.Request()
//	public, err := pki.CheckRequest(request)
//	chain, err := a.Issue(public, host, now, 24*time.Hour)       // host is an id, or pki.Server
//
//	var c pki.Current                                            // what a party shows, replaced while connections are made
//	c.Set(pki.Certificate(chain, key))
//	config := c.Listen(a.Roots(), pki.Server)                    // lets in whom the authority calls a server
//	config = c.Dial(a.Roots(), host)                             // speaks to that host alone
//
// A certificate has one name, which is who it stands for: a host's id, or Server. So a host can pass neither for another one nor for a
// server. Names are checked by the standard library, as those of web servers are; there is TLS 1.3 only.
//
// It is a leaf package but for internal/errs.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	// Server is the name in every server's certificate.
	Server = "server.wrenn.internal"
	// authorityTime is how long an authority is good. Its certificate is renewed with its installation.
	authorityTime = 20 * 365 * 24 * time.Hour
	// skew is how far clocks may be apart.
	skew = 5 * time.Minute
	// MaxRequest bounds a request, in bytes: it has one key and no names.
	MaxRequest = 4 << 10
)

// Key is a private key.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey makes one.
func NewKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return Key{k}, err
}

// ParseKey reads what Key.Encode wrote.
func ParseKey(pkcs8 []byte) (Key, error) {
	k, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return Key{}, fmt.Errorf("private key: %w: %w", err, errs.ErrCorrupt)
	}
	e, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("private key: it is a %T: %w", k, errs.ErrCorrupt)
	}
	return Key{e}, nil
}

// Encode is the key as PKCS #8.
func (k Key) Encode() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.private) }

// Request is what CheckRequest takes: the public key, signed with the private one.
func (k Key) Request() ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.private)
}

// Public is somebody's public key.
type Public struct{ key *ecdsa.PublicKey }

// Hash names the key: SHA-256 of its standard encoding.
func (p Public) Hash() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(p.key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

// CheckRequest returns the key of a request whose sender has the private one. Everything else in it is nobody's word and ignored.
func CheckRequest(request []byte) (Public, error) {
	bad := errs.Field("request", "it is no PKCS #10 request with a P-256 key", "make it with this program")
	if len(request) > MaxRequest {
		return Public{}, bad
	}
	r, err := x509.ParseCertificateRequest(request)
	if err != nil || r.CheckSignature() != nil {
		return Public{}, bad
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return Public{}, bad
	}
	return Public{key}, nil
}

// Authority signs certificates.
type Authority struct {
	certificate *x509.Certificate
	key         Key
}

// NewAuthority makes one.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "Wrenn installation"}, NotBefore: now.Add(-skew), NotAfter: now.Add(authorityTime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}
	if t.SerialNumber, err = serial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.private.PublicKey, key.private)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &Authority{c, key}, err
}

// ParseAuthority reads what Encode wrote.
func ParseAuthority(certificate, key []byte) (*Authority, error) {
	c, err := x509.ParseCertificate(certificate)
	if err != nil || !c.IsCA {
		return nil, fmt.Errorf("the authority's certificate: %w: %w", err, errs.ErrCorrupt)
	}
	k, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	if !k.private.PublicKey.Equal(c.PublicKey) {
		return nil, fmt.Errorf("the authority's key is not that of its certificate: %w", errs.ErrCorrupt)
	}
	return &Authority{c, k}, nil
}

// Encode is the authority's certificate and its key.
func (a *Authority) Encode() (certificate, key []byte, err error) {
	key, err = a.key.Encode()
	return a.certificate.Raw, key, err
}

// Certificate is the authority's own, in DER.
func (a *Authority) Certificate() []byte { return a.certificate.Raw }

// Roots are the authority alone.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Issue returns a chain, the new certificate first: the key stands for the name from now on and for a time.
func (a *Authority) Issue(p Public, name string, now time.Time, valid time.Duration) ([][]byte, error) {
	t := &x509.Certificate{DNSNames: []string{name}, NotBefore: now.Add(-skew), NotAfter: now.Add(valid), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	var err error
	if t.SerialNumber, err = serial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.certificate, p.key, a.key.private)
	return [][]byte{der, a.certificate.Raw}, err
}

// IssueOwn is Issue to a key of the caller's own, as what TLS takes.
func (a *Authority) IssueOwn(k Key, name string, now time.Time, valid time.Duration) (*tls.Certificate, error) {
	chain, err := a.Issue(Public{&k.private.PublicKey}, name, now, valid)
	if err != nil {
		return nil, err
	}
	return Certificate(chain, k)
}

func serial() (*big.Int, error) { return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) }

// Certificate is a chain with its key, as TLS takes it. ErrCorrupt when they don't belong together.
func Certificate(chain [][]byte, k Key) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("a chain of no certificates: %w", errs.ErrCorrupt)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate: %w: %w", err, errs.ErrCorrupt)
	}
	if !k.private.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("the certificate is not for this key: %w", errs.ErrCorrupt)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: k.private, Leaf: leaf}, nil
}

// Renewal is when a certificate is to be replaced: with a third of its time left.
func Renewal(c *tls.Certificate) time.Time {
	return c.Leaf.NotAfter.Add(-c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) / 3)
}

// Pin names an authority: SHA-256 of its certificate.
func Pin(certificate []byte) [sha256.Size]byte { return sha256.Sum256(certificate) }

// ErrStranger is somebody whose certificate is not by the authority, not for the name, or over. It is an ErrUnauthenticated.
var ErrStranger = fmt.Errorf("it is not who it should be: %w", errs.ErrUnauthenticated)

// verify checks that a peer's chain leads to one of the roots and stands for a name, as the standard library does; usage is what for.
func verify(chain []*x509.Certificate, roots *x509.CertPool, name string, now time.Time, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return fmt.Errorf("it shows no certificate: %w", ErrStranger)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return fmt.Errorf("%w: %w", err, ErrStranger)
	}
	return nil
}

// pinned finds the authority with the pin in a chain that a peer shows.
func pinned(chain []*x509.Certificate, pin [sha256.Size]byte) (*x509.Certificate, error) {
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return c.IsCA && Pin(c.Raw) == pin })
	if i < 0 {
		return nil, errors.Join(errors.New("its authority is not that of the token"), ErrStranger)
	}
	return chain[i], nil
}
