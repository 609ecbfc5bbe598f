package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/openapi"
)

// document is openapi/wrenn.yaml.
type document struct {
	asJSON map[string]any
	ops    map[string]*operation // by the pattern that the router has
}

// operation is one of the document's.
type operation struct {
	routers.Route
	scope string // what a key must be good for; empty needs none
	keyed bool   // it takes an Idempotency-Key
}

func loadDocument() (*document, error) {
	spec, err := openapi3.NewLoader().LoadFromData(openapi.YAML)
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(context.Background()); err != nil {
		return nil, err
	}
	raw, err := spec.MarshalJSON()
	if err != nil {
		return nil, err
	}
	d := &document{ops: map[string]*operation{}}
	if err := json.Unmarshal(raw, &d.asJSON); err != nil {
		return nil, err
	}
	for path, item := range spec.Paths.Map() {
		for method, op := range item.Operations() {
			o := &operation{Route: routers.Route{Spec: spec, Path: path, PathItem: item, Method: method, Operation: op}}
			o.scope, _ = op.Extensions["x-scope"].(string)
			o.keyed = op.Parameters.GetByInAndName(openapi3.ParameterInHeader, keyHeader) != nil
			if open := op.Security != nil && len(*op.Security) == 0; open == (o.scope != "") {
				return nil, fmt.Errorf("%s: an operation has x-scope or no security", op.OperationID)
			}
			d.ops[method+" "+path] = o
		}
	}
	return d, nil
}

// GetDocument implements rest.StrictServerInterface.
func (s *server) GetDocument(context.Context, rest.GetDocumentRequestObject) (rest.GetDocumentResponseObject, error) {
	return rest.GetDocument200JSONResponse(s.doc.asJSON), nil
}

// bodyTime is how long a caller may take to send a body.
const bodyTime = time.Minute

// checked refuses a request that the document does not describe.
func (s *server) checked(op *operation, next http.Handler) http.Handler {
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := op.knows(r); err != nil {
			writeError(w, r, err)
			return
		}
		if err := op.readBody(w, r); err != nil {
			writeError(w, r, err)
			return
		}
		in := &openapi3filter.RequestValidationInput{Request: r, Route: &op.Route, PathParams: map[string]string{}, Options: options}
		for _, p := range slices.Concat(op.PathItem.Parameters, op.Operation.Parameters) {
			if p.Value.In == openapi3.ParameterInPath {
				in.PathParams[p.Value.Name] = r.PathValue(p.Value.Name)
			}
		}
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			writeError(w, r, refused(err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

const refusedFix = "see GET /v1/openapi.json"

// knows refuses parameters that the operation does not have.
func (op *operation) knows(r *http.Request) error {
	for name := range r.URL.Query() {
		if op.Operation.Parameters.GetByInAndName(openapi3.ParameterInQuery, name) == nil {
			return errs.Field(fmt.Sprintf("%.80s", name), "there is no such parameter", "leave it out, or "+refusedFix)
		}
	}
	if !op.keyed && r.Header.Get(keyHeader) != "" {
		return errs.Field(keyHeader, "this operation takes none", "leave it out")
	}
	return nil
}

// readBody reads the whole body, in its time, and puts it back. It is one JSON value, or nothing where nothing is taken.
func (op *operation) readBody(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // where there is no connection, there is no deadline
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return err
	case err != nil:
		return errs.Field("body", "it did not come: "+err.Error(), fmt.Sprintf("send it within %v", bodyTime))
	case op.Operation.RequestBody == nil && len(body) > 0:
		return errs.Field("body", "this operation takes none", "leave it out")
	case op.Operation.RequestBody != nil && !json.Valid(body):
		return errs.Field("body", "it is not one JSON value", refusedFix)
	}
	_ = rc.SetReadDeadline(time.Time{}) // what the operation does may take longer
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

// refused is what the document has against a request: the field, what is wrong, and what the document says of the field.
func refused(err error) error {
	var request *openapi3filter.RequestError
	if !errors.As(err, &request) {
		return err
	}
	field, problem, fix := "body", request.Error(), refusedFix
	if request.Parameter != nil {
		field = request.Parameter.Name
		if request.Parameter.Description != "" {
			fix = request.Parameter.Description
		}
	}
	var schema *openapi3.SchemaError
	if errors.As(err, &schema) {
		problem = schema.Reason
		if path := append(schema.JSONPointer(), unknown(schema)...); len(path) > 0 {
			field = strings.Join(path, ".")
		}
		if schema.Schema != nil && schema.Schema.Description != "" {
			fix = schema.Schema.Description
		}
	}
	return errs.Field(fmt.Sprintf("%.200s", field), fmt.Sprintf("%.500s", problem), strings.TrimSpace(fix))
}

// unknown is the name of the field that a schema does not have, if that is what is wrong.
func unknown(e *openapi3.SchemaError) []string {
	value, ok := e.Value.(map[string]any)
	if !ok || e.SchemaField != "properties" || e.Schema == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(value)) {
		if e.Schema.Properties[name] == nil {
			return []string{name}
		}
	}
	return nil
}
