// Package files is the content of the guest's files over HTTP, as E2B's SDKs and plain browsers use it.
//
//	GET  /files?path&username          the content; ranges, conditions, and gzip if asked for
//	POST /files?path&username&mode     stores the body, or the files of a form; PUT is the same
//
// A request acts as the user that it names, or as the default one, with that user's rights and no others (package actas). What is
// transferred is never held in memory, and a file is stored whole or not at all (filesystem.Store).
//
// An upload answers with a list of what it stored. Errors are JSON: {"code": the status, "message": why}. 400 for a request that can't be
// right, 401 for a user or signature that is not, 403 for what the user may not do, 404 for a file that does not exist, 406 for an
// encoding that there isn't, 429 when too much is transferred at once, 507 for a full disk.
//
// Who may ask at all is decided before (ParseQuery, Query.Verify).
package files

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem/actas"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// Limits bound what the callers can make envd hold. A zero limit allows nothing.
type Limits struct {
	// Transfers is how many run at once, and Wait how long another waits for one of them to end.
	Transfers int
	Wait      time.Duration
	// Stall is how long the client may neither take nor send anything.
	Stall time.Duration
	// Files is how many one form may have.
	Files int
}

// DefaultLimits are those of envd.
func DefaultLimits() Limits {
	return Limits{Transfers: 128, Wait: 30 * time.Second, Stall: 10 * time.Minute, Files: 4096}
}

// Handler serves files.
type Handler struct {
	users  user.DB
	limits Limits
	slots  chan struct{}
}

// New returns a handler for the users' files.
func New(users user.DB, limits Limits) *Handler {
	return &Handler{users: users, limits: limits, slots: make(chan struct{}, limits.Transfers)}
}

// Serve answers a request whose query was read. signed says that a signature allows it, and not the token: then the form decides about
// nothing that was not signed.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, q Query, signed bool) {
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w), stall: h.limits.Stall}
	defer a.calm()
	err := h.serve(a, r, q, signed)
	switch {
	case err == nil:
	case a.begun: // the client must not take what it has for the whole
		panic(http.ErrAbortHandler)
	default:
		if r.ProtoMajor == 1 && (r.Method == http.MethodPost || r.Method == http.MethodPut) {
			// Or net/http would wait for more of a body that nobody wants before it sends the answer.
			w.Header().Set("Connection", "close")
		}
		WriteError(w, err)
	}
}

func (h *Handler) serve(a *answer, r *http.Request, q Query, signed bool) error {
	u, err := h.user(q.User)
	if err != nil {
		return err
	}
	if err := h.enter(r); err != nil {
		return err
	}
	defer func() { <-h.slots }()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return h.download(a, r, q, u)
	}
	a.expect()
	up, err := h.newUpload(a, r, q, u, signed)
	if err != nil {
		return err
	}
	if err := actas.Run(u, up.run); err != nil {
		return err
	}
	a.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(a).Encode(up.stored)
}

// enter waits for a place.
func (h *Handler) enter(r *http.Request) error {
	late := time.NewTimer(h.limits.Wait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	case <-late.C:
		return fault.New(errs.ErrResourceExhausted, "%d files are transferred already: try again later", h.limits.Transfers)
	}
}

const maxUserName = 256

// user is the one of a name, or the default one.
func (h *Handler) user(name string) (user.User, error) {
	if name == "" {
		return h.users.Default()
	}
	if len(name) > maxUserName {
		return user.User{}, fault.New(errs.ErrUnauthenticated, "invalid username of %d bytes", len(name))
	}
	u, err := h.users.Lookup(name)
	if errors.Is(err, errs.ErrNotFound) {
		return user.User{}, fault.New(errs.ErrUnauthenticated, "invalid username: '%s'", name)
	}
	return u, err
}

// errNotAcceptable is the kind of a request for an encoding that there isn't.
var errNotAcceptable = errors.New("not acceptable")

// WriteError answers with an error. It is the one place where kinds of error become statuses of HTTP.
func WriteError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	for _, c := range []struct {
		kind error
		code int
	}{
		{errNotAcceptable, http.StatusNotAcceptable},
		{filesystem.ErrNoSpace, http.StatusInsufficientStorage},
		{errs.ErrInvalid, http.StatusBadRequest},
		{errs.ErrUnauthenticated, http.StatusUnauthorized},
		{errs.ErrPermissionDenied, http.StatusForbidden},
		{errs.ErrNotFound, http.StatusNotFound},
		{errs.ErrAlreadyExists, http.StatusConflict},
		{errs.ErrFailedPrecondition, http.StatusBadRequest},
		{errs.ErrResourceExhausted, http.StatusTooManyRequests},
		{errs.ErrUnavailable, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, c.kind) {
			code = c.code
			break
		}
	}
	writeError(w, code, err.Error())
}

func writeError(w http.ResponseWriter, code int, message string) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "ETag", "Last-Modified"} {
		w.Header().Del(name)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": message}) // fails when the client is gone
}

// answer is a response whose client may not stop taking it.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
	begun   bool
	replied bool // an error took the place of what follows
}

// WriteHeader implements http.ResponseWriter. The one error that net/http itself answers with gets the form of all others.
func (a *answer) WriteHeader(code int) {
	a.begun = true
	if code == http.StatusRequestedRangeNotSatisfiable {
		a.replied = true
		writeError(a.ResponseWriter, code, "the range lies outside of the file")
		return
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	if a.replied {
		return len(p), nil
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(a.stall)) // what can't be set is not there: a recorder of a test
	return a.ResponseWriter.Write(p)
}

// expect sets until when the client must send more. That stays after the answer, because net/http then reads what is left of the body,
// and ends where it waits for the next request.
func (a *answer) expect() { _ = a.control.SetReadDeadline(time.Now().Add(a.stall)) } // what can't be set is not there: a test's recorder

// calm takes the deadline of writing away, which nobody else does: the connection may be used again.
func (a *answer) calm() { _ = a.control.SetWriteDeadline(time.Time{}) }
