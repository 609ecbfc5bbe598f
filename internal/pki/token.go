package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	// TokenPrefix begins every token: it is found when it lies where it should not.
	TokenPrefix = "wrennjoin_"
	secretBytes = 32
	// maxToken bounds a token, in bytes.
	maxToken = 1 << 10
)

// Token lets one host join: where the server is, by what it is known, and the secret that the server knows it by.
type Token struct {
	Address string // host:port
	Pin     [sha256.Size]byte
	Secret  [secretBytes]byte
}

// NewToken makes a token.
func NewToken(address string, certificate []byte) (Token, error) {
	t := Token{Address: address, Pin: Pin(certificate)}
	_, err := rand.Read(t.Secret[:])
	return t, err
}

// Hash is what is kept of the secret: enough for something that nobody can guess.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.Secret[:])
	return sum[:]
}

// String is what ParseToken reads: letters, digits, dashes and underscores.
func (t Token) String() string {
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(append(append(t.Secret[:], t.Pin[:]...), t.Address...))
}

// ParseToken reads a token.
func ParseToken(s string) (Token, error) {
	var t Token
	bad := errs.Field("--join", "it is no token", "give one that the server made: POST /v1/hosts/tokens")
	body, ok := strings.CutPrefix(s, TokenPrefix)
	if !ok || len(s) > maxToken {
		return t, bad
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(raw) <= secretBytes+sha256.Size {
		return t, bad
	}
	n := copy(t.Secret[:], raw)
	n += copy(t.Pin[:], raw[n:])
	t.Address = string(raw[n:])
	if err := CheckAddress("--join", t.Address); err != nil {
		return Token{}, bad
	}
	return t, nil
}

// CheckAddress refuses what is no host and port that can be dialed.
func CheckAddress(field, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" || len(address) > 255 || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errs.Field(field, fmt.Sprintf("%.80q is no address", address), "give a host and a port, such as wrenn.example.org:7444")
	}
	return nil
}
