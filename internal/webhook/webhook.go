// Package webhook signs and verifies messages as Standard Webhooks 1.0 says (standardwebhooks.com), so that any library for them verifies ours. The
// server signs with it, and who receives messages in Go verifies with it.
//
//	secret := webhook.NewSecret()                                   // "whsec_…"
//	err := webhook.Sign(req.Header, id, time.Now(), body, secret)
//
//	err := webhook.Verify(r.Header, body, time.Now(), secret)       // nil for a message that is good
//
// What is signed is the id, the time in seconds and the body as it is, with a full stop between them, by HMAC-SHA256.
//
// It is a leaf package but for internal/errs.
package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// The headers of a message.
const (
	// IDHeader names a message: one that comes twice has the same.
	IDHeader = "Webhook-Id"
	// TimeHeader is when it was sent, in seconds since 1970.
	TimeHeader = "Webhook-Timestamp"
	// SignatureHeader has signatures with spaces between them, one for each secret that is good.
	SignatureHeader = "Webhook-Signature"
)

const (
	// secretPrefix is how every secret begins; the rest is base64 of the key.
	secretPrefix = "whsec_"
	newKeyBytes  = 32
	minKeyBytes  = 24
	maxKeyBytes  = 64
	// version begins a signature of this kind.
	version = "v1,"
	// maxSignatures bounds how many signatures Verify looks at.
	maxSignatures = 16
)

// Tolerance is how far a message's time may be from the receiver's clock: an older one was sent again by somebody else.
const Tolerance = 5 * time.Minute

// NewSecret returns a fresh secret.
func NewSecret() string {
	key := make([]byte, newKeyBytes)
	_, _ = rand.Read(key) // never fails, see its documentation
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// CheckSecret refuses what can't be a secret. It fails with an errs.FieldError for "secret".
func CheckSecret(secret string) error {
	_, err := keyOf(secret)
	return err
}

func keyOf(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(key) < minKeyBytes || len(key) > maxKeyBytes {
		return nil, errs.Field("secret", "it is none", fmt.Sprintf("give %s and %d to %d random bytes in base64", secretPrefix, minKeyBytes, maxKeyBytes))
	}
	return key, nil
}

// Sign puts a message's headers into h: it is signed with each of the secrets, so that a receiver may have any of them.
func Sign(h http.Header, id string, at time.Time, body []byte, secrets ...string) error {
	seconds := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, secret := range secrets {
		key, err := keyOf(secret)
		if err != nil {
			return err
		}
		signatures = append(signatures, version+base64.StdEncoding.EncodeToString(sum(key, id, seconds, body)))
	}
	h.Set(IDHeader, id)
	h.Set(TimeHeader, seconds)
	h.Set(SignatureHeader, strings.Join(signatures, " "))
	return nil
}

func sum(key []byte, id, seconds string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(id + "." + seconds + ".")) // a hash takes everything
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}

// Verify says whether a message was signed with one of the secrets, and sent within Tolerance of now. The body is what came, byte for byte. Errors
// are ErrUnauthenticated, and a FieldError for a secret that is none.
func Verify(h http.Header, body []byte, now time.Time, secrets ...string) error {
	id, seconds := h.Get(IDHeader), h.Get(TimeHeader)
	if id == "" {
		return bad("it has no " + IDHeader)
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return bad("it has no " + TimeHeader)
	}
	if age := now.Sub(time.Unix(unix, 0)); age > Tolerance || age < -Tolerance {
		return bad(fmt.Sprintf("it was sent %v ago", age))
	}
	signatures := strings.SplitN(h.Get(SignatureHeader), " ", maxSignatures+1)
	for _, secret := range secrets {
		key, err := keyOf(secret)
		if err != nil {
			return err
		}
		want := sum(key, id, seconds, body)
		for _, s := range signatures[:min(len(signatures), maxSignatures)] {
			text, ours := strings.CutPrefix(s, version)
			if got, err := base64.StdEncoding.DecodeString(text); ours && err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return bad("no signature of it is good")
}

func bad(why string) error {
	return fmt.Errorf("the message can't be trusted: %s: %w", why, errs.ErrUnauthenticated)
}
