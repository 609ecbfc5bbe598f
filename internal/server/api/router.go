package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/contract"
)

// router is the generated code's ServeMux: it puts what wrap does before every operation.
type router struct {
	mux  *http.ServeMux
	wrap func(*contract.Operation, http.Handler) http.Handler
	ops  map[string]*contract.Operation
	// literal are the paths in which nothing stands for anything else.
	literal map[string]bool
	err     error
}

// HandleFunc implements rest.ServeMux.
func (m *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	op := m.ops[pattern]
	if op == nil {
		m.err = fmt.Errorf("the document has no operation %s: is the generated code older?", pattern)
		return
	}
	if _, path, _ := strings.Cut(pattern, " "); !strings.Contains(path, "{") {
		m.literal[path] = true
	}
	m.mux.Handle(pattern, m.wrap(op, http.HandlerFunc(h)))
}

// ServeHTTP implements http.Handler.
func (m *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.has(r) {
		m.mux.ServeHTTP(w, r)
		return
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if m.has(other) {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		writeError(w, r, fmt.Errorf("there is nothing at %.200q; GET /v1/openapi.json tells what there is: %w", r.URL.Path, errs.ErrNotFound))
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, r, &methodError{r.Method, allowed})
}

// has says whether the document has what a request asks for. A path that it has as such, /v1/hosts/tokens, is not one with that as an id too.
func (m *router) has(r *http.Request) bool {
	_, pattern := m.mux.Handler(r)
	return pattern != "" && (!m.literal[r.URL.Path] || strings.HasSuffix(pattern, " "+r.URL.Path))
}

// seen is what the log tells of an answer.
type seen struct {
	http.ResponseWriter
	status int
	err    error
	// before is called with the status before the first byte leaves, if it is not nil. Its error is the answer instead.
	before   func(status int) error
	replaced bool
	id       string // the request's
	// operation is the document's id of what was asked for; empty for a path that is not there.
	operation string
}

// named says which operation a request asks for.
func named(op *contract.Operation, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, ok := w.(*seen); ok {
			s.operation = op.ID
		}
		next.ServeHTTP(w, r)
	})
}

// WriteHeader implements http.ResponseWriter.
func (s *seen) WriteHeader(status int) {
	if s.replaced {
		return
	}
	if s.status == 0 {
		s.status = status
		if s.before != nil {
			if err := s.before(status); err != nil {
				s.replace(err)
				return
			}
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

// common sets the headers that every answer has.
func (s *seen) common() {
	h := s.Header()
	h.Set("X-Request-Id", s.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// replace answers with an error, in place of the answer that was about to begin.
func (s *seen) replace(err error) {
	s.status, s.before = 0, nil
	clear(s.Header())
	s.common()
	s.err = err
	answerError(s, s.id, err)
	s.replaced = true
}

// Write implements io.Writer.
func (s *seen) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if s.replaced {
		return len(p), nil
	}
	return s.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (s *seen) Unwrap() http.ResponseWriter { return s.ResponseWriter }

type requestIDKey struct{}

// requestID is the id of the request that a context belongs to.
func requestID(ctx context.Context) string {
	s, _ := ctx.Value(requestIDKey{}).(string)
	return s
}

// observed gives a request its id and writes its line in the log. The id is always ours: a caller's could be anything.
func observed(c Config, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, name := time.Now(), id.NewOf(id.Request)
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, name))
		s := &seen{ResponseWriter: w, id: name}
		s.common()
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				c.Log.Error("panic", "request", name, "panic", p, "stack", string(debug.Stack()))
				writeError(s, r, fmt.Errorf("the server failed at this request"))
			}
			if c.Observe != nil {
				c.Observe(s.operation, s.status, time.Since(began))
			}
			level := slog.LevelInfo
			if s.status >= http.StatusInternalServerError {
				level = slog.LevelError
			}
			attrs := []slog.Attr{slog.String("request", name), slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.Int("status", s.status), slog.Duration("took", time.Since(began))}
			if s.err != nil {
				attrs = append(attrs, slog.String("error", s.err.Error()))
			}
			c.Log.LogAttrs(r.Context(), level, "request", attrs...)
			if p == http.ErrAbortHandler {
				panic(p) // its way to cut an answer off
			}
		}()
		next.ServeHTTP(s, r)
	})
}
