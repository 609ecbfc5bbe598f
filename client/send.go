package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// maxAnswer bounds an answer that is no stream, in bytes: a page of a thousand sandboxes with all their metadata is the longest.
	maxAnswer = 64 << 20
	// maxError bounds an answer that is an error.
	maxError = 1 << 20
	// firstWait and maxWait are how long is waited before a request is sent again: each time twice as long, and a random part less.
	firstWait = 200 * time.Millisecond
	maxWait   = 5 * time.Second
	// maxRetryAfter is how long a server may have its callers wait; of more, the caller is told.
	maxRetryAfter = time.Minute
)

// safe says when a request may be sent again.
type safe int

const (
	// unsent: only when it did not reach the server.
	unsent safe = iota
	// unanswered: also when there was no answer. It carries a key, so that it happens once all the same; but what failed is not remembered.
	unanswered
	// always: also when the answer is that it may work later.
	always
)

// manner is how a request is sent. It comes with the context, because generated code makes the requests.
type manner struct {
	safe   safe
	stream bool // the answer is read by who asked
}

type mannerKey struct{}

func sent(ctx context.Context, m manner) context.Context {
	return context.WithValue(ctx, mannerKey{}, m)
}

// mannerOf is what a request's context says, or what is right for any request like it.
func mannerOf(req *http.Request) manner {
	m, ok := req.Context().Value(mannerKey{}).(manner)
	if !ok && (req.Method == http.MethodGet || req.Header.Get("Idempotency-Key") != "") {
		m.safe = always
	}
	return m
}

type onceKey struct{}

// WithIdempotencyKey has the requests of a context carry a key: what is asked for with one happens once, however often it is asked for, and by
// which program, for a day. It is for one call. Without it every call that makes or changes something has a key of its own, so that the client itself
// can ask again when an answer is lost.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, onceKey{}, key)
}

// once is the key of a request.
func once(ctx context.Context) *string {
	if key, _ := ctx.Value(onceKey{}).(string); key != "" {
		return &key
	}
	return new(rand.Text())
}

// sender sends requests: with the API key, again where that is safe, and with an error for each answer that is none.
type sender struct {
	http       *http.Client
	key, agent string
	retries    int
}

func newSender(c config) *sender {
	h := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	if c.http != nil {
		*h = *c.http
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &sender{h, c.key, c.agent, c.retries}
}

// Do implements rest.HttpRequestDoer. The answer is a success; unless it is a stream, all of it is there.
func (s *sender) Do(req *http.Request) (*http.Response, error) {
	maps.Copy(req.Header, s.header())
	how := mannerOf(req)
	for try := 0; ; try++ {
		resp, err := s.ask(req, how)
		if err == nil || try >= s.retries || !again(how, err) || req.Body != nil && req.GetBody == nil {
			return resp, err
		}
		if !pause(req.Context(), try, err) {
			return nil, err
		}
		if req.Body != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// header is what every request carries.
func (s *sender) header() http.Header {
	h := http.Header{"User-Agent": {s.agent}}
	if s.key != "" {
		h.Set("Authorization", "Bearer "+s.key)
	}
	return h
}

// ask sends a request once.
func (s *sender) ask(req *http.Request, how manner) (*http.Response, error) {
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, broken(req.Context(), err)
	}
	good := resp.StatusCode >= 200 && resp.StatusCode < 300
	if (good || resp.StatusCode == http.StatusSwitchingProtocols) && how.stream {
		return resp, nil
	}
	most := int64(maxAnswer)
	if !good {
		most = maxError
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	_ = resp.Body.Close() // it was read
	switch {
	case err != nil:
		return nil, broken(req.Context(), err)
	case !good:
		return nil, failure(resp, body)
	case int64(len(body)) > most:
		return nil, fmt.Errorf("the answer has more than %d bytes: %w", most, ErrTooLarge)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// broken is that there is no answer. A context that ended is why, then.
func broken(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: the server does not answer: %w", ErrUnavailable, err)
}

// again says whether a request is sent again after an error.
func again(how manner, err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		var dial *net.OpError
		nothingSent := errors.As(err, &dial) && dial.Op == "dial"
		return errors.Is(err, ErrUnavailable) && (how.safe >= unanswered || nothingSent)
	}
	if e.RetryAfter > maxRetryAfter {
		return false
	}
	switch {
	case e.Status == http.StatusTooManyRequests: // it was refused before anything was done
		return how.safe >= unanswered && e.RetryAfter > 0
	default:
		return how.safe == always && errors.Is(e, ErrUnavailable)
	}
}

// pause waits before a request is sent again, and says whether there is time for it.
func pause(ctx context.Context, try int, err error) bool {
	wait := time.Duration(math.Min(float64(firstWait)*math.Pow(2, float64(try)), float64(maxWait)))
	wait -= mrand.N(wait / 2) // so that callers that failed together don't come back together
	var e *Error
	if errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return false // what went wrong is a better word than that the time is over
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// decode reads the JSON of an answer.
func decode[T any](resp *http.Response, err error) (v T, _ error) {
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return v, nil
	}
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return v, fmt.Errorf("the answer is %q and no JSON: is this a Wrenn server? %w", kind, ErrInternal)
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return v, fmt.Errorf("the answer can't be read: %w: %w", err, ErrInternal)
	}
	return v, nil
}
