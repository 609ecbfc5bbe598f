package files

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// Operation is what a signature allows.
type Operation string

// The operations.
const (
	Read  Operation = "read"
	Write Operation = "write"
)

// Query is what a request's URL asks for.
type Query struct {
	// Path is as the caller wrote it; HasPath says whether he did.
	Path    string
	HasPath bool
	// User is empty for the default one.
	User string
	// Mode is nil when none is given.
	Mode *uint32
	// Signature is empty for a request that has none. Expires is nil for one without end, or the time in seconds since 1970.
	Signature string
	Expires   *int64
}

// maxQuery bounds the values of a query, in bytes.
const maxQuery = 16 << 10

// ParseQuery reads a request's URL. ErrInvalid with the name of what is wrong.
func ParseQuery(u *url.URL) (Query, error) {
	if len(u.RawQuery) > maxQuery {
		return Query{}, invalid("the query has more than %d bytes", maxQuery)
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Query{}, invalid("the query can't be read: %v", err)
	}
	get := func(name string) (value string, is bool) {
		if list := values[name]; len(list) > 0 {
			return list[0], true
		}
		return "", false
	}
	for _, name := range []string{"path", "username", "mode", "signature", "signature_expiration"} {
		if len(values[name]) > 1 {
			return Query{}, invalid("%s is given %d times: give it once", name, len(values[name]))
		}
	}
	var q Query
	q.Path, q.HasPath = get("path")
	q.User, _ = get("username")
	q.Signature, _ = get("signature")
	// A plus that was not escaped is read as a space, which no signature has.
	q.Signature = strings.ReplaceAll(q.Signature, " ", "+")
	if text, is := get("mode"); is {
		if q.Mode, err = parseMode(text); err != nil {
			return Query{}, err
		}
	}
	if text, is := get("signature_expiration"); is {
		expires, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return Query{}, invalid("signature_expiration '%.20s' is no number of seconds since 1970", text)
		}
		q.Expires = &expires
	}
	return q, nil
}

func parseMode(text string) (*uint32, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o777 {
		return nil, invalid("mode '%.20s' is no octal number up to 0777", text)
	}
	m := uint32(mode)
	return &m, nil
}

// Sign makes the signature of a path for one operation, by one user: empty is the default one. It holds until expires, in seconds since
// 1970; nil is as long as the token. The path counts as it is written, not where it leads.
func Sign(token string, op Operation, path, user string, expires *int64) string {
	text := path + ":" + string(op) + ":" + user + ":" + token
	if expires != nil {
		text += ":" + strconv.FormatInt(*expires, 10)
	}
	sum := sha256.Sum256([]byte(text))
	return "v1_" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Verify says whether the query's signature allows an operation to who has no token. ErrUnauthenticated. The time that it takes tells
// nothing of the right signature.
//
// The fields of what is signed have colons between them, and may have some in them: a signature for the path "a" by the user "b:c" would
// be one for the path "a:…" of another. No user has a colon in its name, so one that does is refused.
func (q Query) Verify(token string, op Operation, now time.Time) error {
	want := Sign(token, op, q.Path, q.User, q.Expires)
	if subtle.ConstantTimeCompare([]byte(want), []byte(q.Signature)) != 1 || token == "" || strings.ContainsRune(q.User, ':') {
		return fault.New(errs.ErrUnauthenticated, "invalid signature")
	}
	if q.Expires != nil && *q.Expires < now.Unix() {
		return fault.New(errs.ErrUnauthenticated, "signature is already expired")
	}
	return nil
}

func invalid(format string, args ...any) error { return fault.New(errs.ErrInvalid, format, args...) }

// String is for logs: without the signature.
func (q Query) String() string { return fmt.Sprintf("%q as %q", q.Path, q.User) }
