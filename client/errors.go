package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// The kinds of error. Each says what a caller can do about it; errors.Is asks for them.
var (
	// ErrInvalid: the request itself is wrong, and fails again unchanged. The Error names the field and the fix.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnauthenticated: the API key is missing, wrong, expired or revoked.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied: the key is good, but not for this.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrNotFound: what the request names does not exist, or is another team's.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists: what the request would make exists.
	ErrAlreadyExists = errors.New("already exists")
	// ErrFailedPrecondition: the sandbox is not in a state for this, or something still uses what is to be removed.
	ErrFailedPrecondition = errors.New("failed precondition")
	// ErrResourceExhausted: a limit, quota or disk is full, or requests come too fast.
	ErrResourceExhausted = errors.New("resource exhausted")
	// ErrTooLarge: the request has too many bytes.
	ErrTooLarge = errors.New("too large")
	// ErrUnavailable: the server, or a part that it needs, does not answer now. The same request may work later.
	ErrUnavailable = errors.New("unavailable")
	// ErrTimeout: the time was over that the command was given.
	ErrTimeout = errors.New("timed out")
	// ErrDataLoss: stored state fails its own checks and is not used.
	ErrDataLoss = errors.New("data loss")
	// ErrInternal: the server failed. Its log has more under the request id.
	ErrInternal = errors.New("internal error")
)

// kinds are those of the API's codes.
var kinds = map[string]error{
	string(rest.InvalidArgument): ErrInvalid, string(rest.Unauthenticated): ErrUnauthenticated, string(rest.PermissionDenied): ErrPermissionDenied,
	string(rest.NotFound): ErrNotFound, string(rest.MethodNotAllowed): errors.ErrUnsupported, string(rest.AlreadyExists): ErrAlreadyExists,
	string(rest.FailedPrecondition): ErrFailedPrecondition, string(rest.ResourceExhausted): ErrResourceExhausted, string(rest.TooLarge): ErrTooLarge,
	string(rest.Internal): ErrInternal, string(rest.DataLoss): ErrDataLoss, string(rest.Unavailable): ErrUnavailable,
	string(rest.DeadlineExceeded): ErrTimeout,
}

// Error is what the server has against a request. It is of one of the kinds above.
type Error struct {
	// Status is HTTP's; 0 when the request was refused before it was sent, or the error came in a stream.
	Status int
	// Code is the kind, by the API's name: "not_found".
	Code string
	// Message is for a person.
	Message string
	// Field is the part of the request that is wrong, and Fix what would be right; both may be empty.
	Field, Fix string
	// RequestID is in the server's log, too.
	RequestID string
	// RetryAfter is how long the server asks to wait; 0 when it does not say.
	RetryAfter time.Duration
}

// Error is one line: field, message, fix.
func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap makes errors.Is work with the kinds.
func (e *Error) Unwrap() error { return kinds[e.Code] }

// invalid is a request that is not sent.
func invalid(field, message, fix string) error {
	return &Error{Code: string(rest.InvalidArgument), Field: field, Message: message, Fix: fix}
}

// named refuses a name that would make another path of a request's.
func named(field, name string) error {
	if name == "" || name == "." || name == ".." {
		return invalid(field, fmt.Sprintf("%q is none", name), "give the one that the server told")
	}
	return nil
}

func fromRest(e rest.Error) *Error {
	return &Error{Code: string(e.Code), Message: e.Message, Field: or(e.Field, ""), Fix: or(e.Fix, ""), RequestID: e.RequestID}
}

// failure is the error that an answer is. One that is not of the API's shape comes from something between here and the server.
func failure(resp *http.Response, body []byte) *Error {
	var told rest.Error
	e := &Error{}
	if err := json.Unmarshal(body, &told); err == nil && told.Code != "" {
		e = fromRest(told)
	} else {
		e.Code, e.Message = codeOf(resp.StatusCode), fmt.Sprintf("the server answered %s with %.200q", resp.Status, body)
	}
	e.Status = resp.StatusCode
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, int(maxRetryAfter/time.Second)+1)) * time.Second
	}
	return e
}

// codeOf is what a status that came without a code means.
func codeOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return string(rest.Unauthenticated)
	case http.StatusForbidden, http.StatusProxyAuthRequired:
		return string(rest.PermissionDenied)
	case http.StatusNotFound, http.StatusGone:
		return string(rest.NotFound)
	case http.StatusRequestEntityTooLarge:
		return string(rest.TooLarge)
	case http.StatusTooManyRequests:
		return string(rest.ResourceExhausted)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return string(rest.Unavailable)
	}
	return string(rest.Internal)
}

// or is what a pointer points to, or a default.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// given is a pointer to a value that is not its type's zero.
func given[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}
