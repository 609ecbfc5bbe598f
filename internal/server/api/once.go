package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// claimTime is how long a server that works for an idempotency key is waited for without a word of it, and renewTime how often it gives one.
	// Who asks again after that goes on with the work, under its name.
	claimTime = 30 * time.Second
	renewTime = 10 * time.Second
)

type opKey struct{}

// opOf is the name of the operation that a request asks for.
func opOf(ctx context.Context) control.Op {
	if op, ok := ctx.Value(opKey{}).(control.Op); ok {
		return op
	}
	return control.NewOp()
}

// once has a request with an idempotency key happen once. The work goes on when its caller leaves, so that a caller who comes back finds
// its answer. An answer that is no success is not kept.
func (s *server) once(op *contract.Operation, next http.Handler) http.Handler {
	if !op.Keyed {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(contract.KeyHeader)
		if key == "" {
			next.ServeHTTP(w, r)
			return
		}
		hash, err := requestHash(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		answer, name, err := s.Store.Claim(r.Context(), team(r.Context()), key, string(control.NewOp()), hash, claimTime)
		if err != nil {
			writeError(w, r, err)
			return
		}
		if answer == nil {
			answer = s.work(w, r, key, control.Op(name), next)
		} else {
			w.Header().Set("Idempotent-Replayed", "true")
		}
		if answer != nil {
			if len(answer.Body) > 0 {
				w.Header().Set("Content-Type", "application/json")
			}
			w.WriteHeader(answer.Status)
			_, _ = w.Write(answer.Body)
		}
	})
}

// requestHash is what makes two requests the same: where they go and what they say.
func requestHash(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h := sha256.New()
	_, _ = io.WriteString(h, r.Method+" "+r.URL.Path+"\n") // a hash takes everything
	_, _ = h.Write(body)
	return h.Sum(nil), nil
}

// work does the work of who has the key, keeps its answer and returns it; nil when the answer was an error, which is written then.
func (s *server) work(w http.ResponseWriter, r *http.Request, key string, name control.Op, next http.Handler) *store.Answer {
	ctx := context.WithValue(context.WithoutCancel(r.Context()), opKey{}, name)
	rec := &recorder{header: http.Header{}}
	kept := false
	defer func() {
		if !kept { // also when it panics
			if err := cleanup.Do(ctx, func(ctx context.Context) error { return s.Store.Drop(ctx, team(ctx), key, string(name)) }); err != nil {
				s.Log.Warn("an idempotency key was not given back", "request", requestID(ctx), "error", err)
			}
		}
	}()
	stop := s.renewed(ctx, key, name)
	defer stop()
	next.ServeHTTP(rec, r.WithContext(ctx))
	stop()
	if rec.err != nil { // every error goes through writeError
		writeError(w, r, rec.err)
		return nil
	}
	answer := store.Answer{Status: rec.status, Body: rec.body.Bytes()}
	if err := cleanup.Do(ctx, func(ctx context.Context) error { return s.Store.Keep(ctx, team(ctx), key, string(name), answer) }); err != nil {
		s.Log.Warn("the answer to an idempotency key was not kept", "request", requestID(ctx), "error", err)
	}
	kept = true
	return &answer
}

// renewed says that the work for a key goes on, now and then, until the function that it returns is called.
func (s *server) renewed(ctx context.Context, key string, name control.Op) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(renewTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := s.Store.Renew(ctx, team(ctx), key, string(name), claimTime); err != nil && ctx.Err() == nil {
					s.Log.Warn("the claim of an idempotency key was not renewed; it is tried again", "request", requestID(ctx), "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		ended.Wait()
	}
}

// recorder is an answer that is kept before it is given.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	err    error // instead of an answer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
