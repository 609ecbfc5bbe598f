package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/openapi"
)

// GetDocument implements rest.StrictServerInterface.
func (s *server) GetDocument(context.Context, rest.GetDocumentRequestObject) (rest.GetDocumentResponseObject, error) {
	var doc rest.GetDocument200JSONResponse
	return doc, json.Unmarshal(openapi.JSON, &doc)
}

// maxBody bounds a body of JSON, in bytes: a command with all its arguments is the longest.
const maxBody = 2 << 20

// bodyTime is how long a caller may take to send a body.
const bodyTime = time.Minute

// checked refuses a request that the document does not describe. A body that is bytes is the operation's to read; any other is read here.
func (s *server) checked(op *contract.Operation, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := op.CheckParams(r)
		switch {
		case err != nil:
		case op.Raw:
			r.Body, err = streamed(w, r)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			var body []byte
			if body, err = readBody(w, r); err == nil {
				err = op.CheckBody(body)
			}
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readBody reads the whole body, in its time, and puts it back.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // where there is no connection, there is no deadline
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, err
	}
	if err != nil {
		return nil, errs.Field("body", "it did not come: "+err.Error(), fmt.Sprintf("send it within %v", bodyTime))
	}
	_ = rc.SetReadDeadline(time.Time{}) // what the operation does may take longer
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}
