package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/errs/httpcode"
	"wrenn.dev/wrenn/internal/server/rest"
)

// methodError is a method that a path does not have.
type methodError struct {
	method  string
	allowed []string
}

// Error implements error.
func (e *methodError) Error() string {
	return fmt.Sprintf("%.20q can't be done here; it has %s", e.method, strings.Join(e.allowed, ", "))
}

// badRequest is an error of generated code that reads a request: nearly all of it the document has refused before.
func badRequest(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return errs.Field("request", err.Error(), "GET /v1/openapi.json tells what it takes")
}

// fromGuest is an error of an operation. The caller's key was good: whom the guest does not know is the user that it was to be done as.
func fromGuest(err error) error {
	if errors.Is(err, errs.ErrUnauthenticated) {
		return errs.Field("user", err.Error(), "give a user that the guest has")
	}
	return err
}

// toError is an error in the API's one shape, with its status.
func toError(requestID string, err error) (int, rest.Error) {
	status, code := httpcode.Of(err)
	e := rest.Error{Code: rest.ErrorCode(code), Message: strings.ToValidUTF8(err.Error(), "\uFFFD"), RequestID: requestID}
	var field *errs.FieldError
	var method *methodError
	var beyond *rangeError
	var tooLarge *http.MaxBytesError
	var quota *errs.QuotaError
	switch {
	case errors.As(err, &quota):
		e.Message, e.Field, e.Used, e.Limit = quota.Error(), &quota.Field, &quota.Used, &quota.Limit
	case errors.As(err, &method):
		status, e.Code = http.StatusMethodNotAllowed, rest.MethodNotAllowed
	case errors.As(err, &beyond):
		status, e.Field, e.Fix = http.StatusRequestedRangeNotSatisfiable, given("Range"), given(fmt.Sprintf("begin below %d", beyond.size))
	case errors.As(err, &tooLarge):
		status, e.Code = http.StatusRequestEntityTooLarge, rest.TooLarge
		e.Message = fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)
	case e.Code == rest.InvalidArgument && errors.As(err, &field):
		e.Message, e.Field, e.Fix = field.Problem, &field.Field, &field.Fix
	case e.Code == rest.Internal:
		e.Message = "the server failed at this request; its log has more under the request id" // what it was is not the caller's affair
	}
	return status, e
}

// writeError is the one place where errors leave.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	switch to := w.(type) {
	case *recorder:
		to.err = err // who has the recorder gives it
		return
	case *seen:
		to.err = err
		if to.status != 0 {
			return // an answer has begun, and is cut off
		}
	}
	answerError(w, requestID(r.Context()), err)
}

// answerError answers with an error.
func answerError(w http.ResponseWriter, request string, err error) {
	status, e := toError(request, err)
	h := w.Header()
	if wait, known := errs.Wait(err); known {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	} else if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	var beyond *rangeError
	if errors.As(err, &beyond) {
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", beyond.size))
	}
	body, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	h.Set("Content-Type", "application/json")
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}
