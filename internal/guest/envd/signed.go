package envd

import (
	"context"
	"net/http"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/guest/envd/files"
)

// signatures checks what was signed with the sandbox's token. For that it keeps the token that the source gave last, which the gate does
// not: it is good for nothing unless the gate asks for this very token, and it is forgotten when the gate closes for a freeze.
type signatures struct {
	Source
	gate *gate

	mu    sync.Mutex
	token []byte // nil while none is known
}

// Identity implements Source.
func (s *signatures) Identity(ctx context.Context) (Identity, error) {
	id, err := s.Source.Identity(ctx)
	if err == nil && id.Token != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.token)
		s.token = []byte(id.Token)
	}
	return id, err
}

// check is nil for a query whose signature allows an operation, and returns the gate's count.
func (s *signatures) check(q files.Query, op files.Operation) (uint64, error) {
	s.mu.Lock()
	token := string(s.token)
	s.mu.Unlock()
	count, err := s.gate.check(http.Header{headerToken: {token}})
	if err != nil {
		return 0, err
	}
	return count, q.Verify(token, op, time.Now())
}

// settle forgets the token if the gate does not open for it.
func (s *signatures) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.gate.check(http.Header{headerToken: {string(s.token)}}); err != nil {
		clear(s.token)
		s.token = nil
	}
}

// quiesced is the gate's closing with the token's end.
func (s *signatures) quiesced(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		next(w, r)
		s.settle() // before the answer goes out: it is sent when the handler is done
	}
}

// serve lets a request through to the files if it shows the token, or a signature in its place.
func (s *signatures) serve(h *files.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := files.ParseQuery(r.URL)
		_, shown := r.Header[headerToken]
		signed := err == nil && !shown && q.Signature != ""
		var count uint64
		var refused error
		if signed {
			count, refused = s.check(q, operation(r.Method))
		} else {
			count, refused = s.gate.check(r.Header)
		}
		if refused != nil { // who may not ask learns nothing of what is wrong with the query
			err = refused
		}
		if err != nil {
			files.WriteError(w, err)
			return
		}
		h.Serve(w, r.WithContext(context.WithValue(r.Context(), admission{}, count)), q, signed)
	})
}

// operation is what a method does to a file.
func operation(method string) files.Operation {
	if method == http.MethodGet || method == http.MethodHead {
		return files.Read
	}
	return files.Write
}
