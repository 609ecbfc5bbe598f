package envd

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const (
	headerToken     = "X-Access-Token"
	headerTimeout   = "Connect-Timeout-Ms"
	headerKeepalive = "Keepalive-Ping-Interval" // seconds

	defaultKeepalive = 90 * time.Second
	maxKeepalive     = 24 * time.Hour
	maxUserName      = 256
)

// requestUser is the user that a request names by Basic authentication, whose password means nothing, or the default one.
// ErrUnauthenticated for a name that the guest does not have.
func requestUser(header http.Header, users user.DB) (user.User, error) {
	name, _, ok := (&http.Request{Header: header}).BasicAuth()
	if !ok || name == "" {
		return users.Default()
	}
	if len(name) > maxUserName {
		return user.User{}, fault.New(errs.ErrUnauthenticated, "invalid username of %d bytes", len(name))
	}
	u, err := users.Lookup(name)
	if errors.Is(err, errs.ErrNotFound) {
		return user.User{}, fault.New(errs.ErrUnauthenticated, "invalid username: '%s'", name)
	}
	return u, err
}

// keepalive is how long a stream may be silent, by the request's header. What is no number of seconds above zero is the default.
func keepalive(header http.Header) time.Duration {
	n, err := strconv.ParseUint(header.Get(headerKeepalive), 10, 31)
	if err != nil || n == 0 {
		return defaultKeepalive
	}
	return min(time.Duration(n)*time.Second, maxKeepalive)
}

// normalizeTimeout removes a timeout that is not above zero: to the SDKs it means none, to the RPC library an error or the past.
func normalizeTimeout(header http.Header) {
	if n, err := strconv.ParseInt(header.Get(headerTimeout), 10, 64); err == nil && n <= 0 {
		header.Del(headerTimeout)
	}
}
