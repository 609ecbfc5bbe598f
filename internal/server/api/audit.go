package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

type madeKey struct{}

// made says what a request has made, for its record in the audit log.
func made(ctx context.Context, name string) {
	if to, ok := ctx.Value(madeKey{}).(*atomic.Pointer[string]); ok {
		to.Store(&name)
	}
}

// maxResource bounds what a record says of the resource, in bytes: ids and names are short.
const maxResource = 256

// audited writes a record of a request that more than the scope to read is needed for. It is written before the first byte of the answer, so
// that there is no answer without a record: when it can't be, the answer is that error instead.
func (s *server) audited(op *contract.Operation, next http.Handler) http.Handler {
	if op.Scope == "" || op.Scope == auth.Read {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var thing atomic.Pointer[string]
		r = r.WithContext(context.WithValue(r.Context(), madeKey{}, &thing))
		record := func(status int) error {
			resource := strings.TrimPrefix(r.URL.Path, "/v1/")
			if name := thing.Load(); name != nil {
				resource += "/" + *name
			}
			who, address := caller(r.Context()), ""
			if from := remote(r); from.IsValid() {
				address = from.String()
			}
			act := store.Act{TeamID: who.Team, KeyID: who.Key, Operation: op.ID, Resource: resource[:min(len(resource), maxResource)],
				Status: int32(status), RequestID: requestID(r.Context()), Address: address}
			err := cleanup.Do(r.Context(), func(ctx context.Context) error { return s.Store.AddAct(ctx, act) }) // also of a caller who has left
			if err != nil {
				return fmt.Errorf("the audit log can't be written, so the answer is not given: %w: %w", errs.ErrUnavailable, err)
			}
			return nil
		}
		answer, ok := w.(*seen)
		if !ok {
			panic("api: audited is not behind observed")
		}
		answer.before = record
		defer func() {
			if answer.status == 0 { // an answer of nothing but its status, or none
				status := http.StatusOK
				if p := recover(); p != nil {
					defer panic(p)
					status = statusNone
				}
				answer.before = nil
				if err := record(status); err != nil {
					writeError(w, r, err)
				}
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// statusNone is how the log calls an answer that there was none of, as nginx does.
const statusNone = 499

// ListAudit implements rest.StrictServerInterface.
func (s *server) ListAudit(ctx context.Context, r rest.ListAuditRequestObject) (rest.ListAuditResponseObject, error) {
	of := or(r.Params.Team, "")
	if who := caller(ctx); who.May(auth.Operator) != nil {
		if of != "" && of != who.Team {
			return nil, fmt.Errorf("what another team did is for operators: %w", errs.ErrPermissionDenied)
		}
		of = who.Team
	}
	list, next, err := s.Store.ListActs(ctx, of, or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListAudit200JSONResponse{Records: make([]rest.AuditRecord, len(list)), NextCursor: given(next)}
	for i, a := range list {
		page.Records[i] = rest.AuditRecord{ID: strconv.FormatInt(a.ID, 10), At: a.At.UTC(), TeamID: a.TeamID, KeyID: a.KeyID, Operation: a.Operation,
			Resource: a.Resource, Status: a.Status, RequestID: a.RequestID, Address: a.Address}
	}
	return page, nil
}
