package simagent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"wrenn.dev/wrenn/internal/errs"
)

// answers are those that were given to idempotency keys, the last of them.
type answers struct {
	mu      sync.Mutex
	entries map[string]*answer
	order   []string
}

// answer is one key's. What is in it does not change once done is closed.
type answer struct {
	done  chan struct{}
	asked [sha256.Size]byte
	value proto.Message
	err   error
}

// keyed is a request that may have an idempotency key.
type keyed interface {
	proto.Message
	GetIdempotencyKey() string
}

// once calls fn, on a context that goes on although the caller leaves. To a request whose key was seen before it answers as then; what failed is done
// anew.
func once[T any, R interface {
	*T
	proto.Message
}](ctx context.Context, h *Host, req keyed, fn func() (R, error)) (*connect.Response[T], error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	a := &answer{done: make(chan struct{}), asked: sha256.Sum256(raw)}
	if req.GetIdempotencyKey() != "" {
		key := string(req.ProtoReflect().Descriptor().Name()) + "\x00" + req.GetIdempotencyKey()
		first, mine := h.answers.begin(key, a)
		if first.asked != a.asked {
			return nil, errs.Field("idempotency_key", fmt.Sprintf("%.80q was used for another request", req.GetIdempotencyKey()), "give a new one")
		}
		if a = first; mine {
			defer h.answers.end(key, a)
		}
		if !mine {
			select {
			case <-a.done:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			if a.err != nil {
				return nil, a.err
			}
			return connect.NewResponse((*T)(a.value.(R))), nil
		}
	}
	value, err := fn()
	a.value, a.err = value, err
	if err != nil {
		return nil, err
	}
	return connect.NewResponse((*T)(value)), nil
}

// begin returns a key's entry, and whether it is the one that was given.
func (s *answers) begin(key string, fresh *answer) (*answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.entries[key]; a != nil {
		return a, false
	}
	for len(s.order) >= keptAnswers {
		delete(s.entries, s.order[0])
		s.order = s.order[1:]
	}
	s.entries[key] = fresh
	return fresh, true
}

// end tells those who wait for an answer, and forgets one that is an error.
func (s *answers) end(key string, a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.err != nil || a.value == nil {
		delete(s.entries, key)
	} else {
		s.order = append(s.order, key)
	}
	close(a.done)
}
