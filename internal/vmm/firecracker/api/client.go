// Package api speaks Firecracker's HTTP API on its unix socket.
//
// The other side is trusted until the guest's first instruction and not after it: a guest may have taken the VMM over. So
// every answer is bounded in size and, by the caller's context, in time, and nothing of it is shown unescaped.
//
// The API takes one request at a time for the whole process and needs Content-Length bodies, which encoding the body before
// sending it gives.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm/firecracker/printable"
)

// Bounds of an answer.
const (
	maxHeaderBytes = 4 << 10
	maxBodyBytes   = 64 << 10
	maxFaultBytes  = 1 << 10
)

// DialFunc connects to the API socket.
type DialFunc func(ctx context.Context) (net.Conn, error)

// Client sends requests. It is safe for use by several goroutines and holds nothing between two requests.
type Client struct{ http *http.Client }

// New returns a client that makes a connection for each request. A connection that is kept could carry bytes that nobody
// asked for.
func New(dial DialFunc) *Client {
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Error is a request that Firecracker refused, in its own words.
type Error struct {
	Method, Path string
	Status       int
	// Fault is the fault message, one printable line. It is empty when the answer had none.
	Fault string
}

// Error names the request that was refused.
func (e *Error) Error() string {
	if e.Fault == "" {
		return fmt.Sprintf("firecracker refused %s %s: status %d", e.Method, e.Path, e.Status)
	}
	return fmt.Sprintf("firecracker refused %s %s: %s", e.Method, e.Path, e.Fault)
}

// Unwrap gives the error its kind: ErrFailedPrecondition for a request that Firecracker understood and refused,
// ErrResourceExhausted for one over a limit, ErrUnavailable for anything else.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusBadRequest:
		return errs.ErrFailedPrecondition
	case http.StatusRequestEntityTooLarge:
		return errs.ErrResourceExhausted
	}
	return errs.ErrUnavailable
}

// Put sends a body to a path. The error of a refused request is an *Error; of one that got no answer, ErrUnavailable with
// the request in its text.
func (c *Client) Put(ctx context.Context, path string, body any) error {
	return c.send(ctx, http.MethodPut, path, body)
}

// Patch is Put with the method PATCH.
func (c *Client) Patch(ctx context.Context, path string, body any) error {
	return c.send(ctx, http.MethodPatch, path, body)
}

func (c *Client) send(ctx context.Context, method, path string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, err, errs.ErrInvalid)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s %s: %w: %w", method, path, err, errs.ErrInvalid)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return unanswered(ctx, method, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusOK {
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
	if err != nil {
		return unanswered(ctx, method, path, err)
	}
	return &Error{Method: method, Path: path, Status: resp.StatusCode, Fault: fault(answer)}
}

// unanswered is the error of a request without a whole answer. The transport's error may quote what came, so of its text
// only a printable line is kept.
func unanswered(ctx context.Context, method, path string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("firecracker did not answer %s %s: %w: %w", method, path, cause, errs.ErrUnavailable)
	}
	return fmt.Errorf("firecracker did not answer %s %s: %s: %w", method, path,
		printable.Line(err.Error(), maxFaultBytes), errs.ErrUnavailable)
}

// fault is the fault message of an answer's body, empty when it has none.
func fault(body []byte) string {
	var doc struct {
		FaultMessage string `json:"fault_message"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return ""
	}
	return printable.Line(doc.FaultMessage, maxFaultBytes)
}
