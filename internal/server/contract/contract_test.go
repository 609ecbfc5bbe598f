package contract

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/openapi"
)

func load(t testing.TB) *Document {
	t.Helper()
	d, err := Load(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var (
	someStrings = []string{"", "base", "a=b", "ü", "cl-0123456789abcdefghij", "read", "pause", "utf-8", "UP", "2026-01-01T00:00:00Z",
		"2026-13-01", strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("ü", 255), strings.Repeat("x", 256)}
	someNumbers = []any{-1, 0, 1, 32, 33, 100, 101, 31536000, 31536001, int64(1) << 40, 1.5}
)

// anything is any JSON value, of few kinds.
func anything(t *rapid.T) any {
	return rapid.SampledFrom(slices.Concat(someNumbers, []any{"text", true, nil, []any{}, []any{"a", 1}, map[string]any{}, map[string]any{"a": "b"}})).Draw(t, "any")
}

// value is one that the schema may allow, more often than not.
func value(t *rapid.T, s *schema) any {
	s = s.real()
	if rapid.IntRange(0, 11).Draw(t, "odd") == 0 {
		return anything(t)
	}
	switch s.Type {
	case "string":
		fitting := s.Enum
		if s.Format == "date-time" {
			fitting = []string{"2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"}
		}
		if len(fitting) > 0 && rapid.IntRange(0, 5).Draw(t, "fitting") > 0 {
			return rapid.SampledFrom(fitting).Draw(t, "string")
		}
		return rapid.SampledFrom(someStrings).Draw(t, "string")
	case "integer":
		return rapid.SampledFrom(someNumbers).Draw(t, "integer")
	case "boolean":
		return rapid.Bool().Draw(t, "boolean")
	case "array":
		list := make([]any, rapid.IntRange(0, 4).Draw(t, "length"))
		for i := range list {
			list[i] = value(t, s.Items)
		}
		return list
	}
	fields := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if slices.Contains(s.Required, name) || rapid.Bool().Draw(t, name) {
			fields[name] = value(t, s.Properties[name])
		}
	}
	if s.Additional != nil && s.Additional.schema != nil || rapid.IntRange(0, 7).Draw(t, "more") == 0 {
		for range rapid.SampledFrom([]int{0, 1, 3, 65}).Draw(t, "fields") {
			fields[rapid.StringN(1, 3, -1).Draw(t, "name")] = rapid.SampledFrom([]any{"x", 1, strings.Repeat("x", 256)}).Draw(t, "field")
		}
	}
	return fields
}

// TestTheLibraryAgrees holds what is refused against a library that knows all of JSON Schema.
func TestTheLibraryAgrees(t *testing.T) {
	doc := load(t)
	spec, err := openapi3.NewLoader().LoadFromData(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	for pattern, op := range doc.Operations {
		if op.body == nil {
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		want := spec.Paths.Value(path).GetOperation(method).RequestBody.Value.Content["application/json"].Schema.Value
		t.Run(op.ID, func(t *testing.T) {
			accepted, refused := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				raw, err := json.Marshal(value(t, op.body))
				if err != nil {
					t.Fatal(err)
				}
				var plainly any
				if err := json.Unmarshal(raw, &plainly); err != nil {
					t.Fatal(err)
				}
				oracle, ours := want.VisitJSON(plainly, openapi3.EnableFormatValidation()), op.CheckBody(raw)
				if (oracle == nil) != (ours == nil) {
					t.Fatalf("%s: we say %v, the library says %v", raw, ours, oracle)
				}
				if ours == nil {
					accepted++
					return
				}
				refused++
				var field *errs.FieldError
				if !errors.As(ours, &field) || field.Field == "" || field.Problem == "" || field.Fix == "" {
					t.Fatalf("%s: %v names no field or fix", raw, ours)
				}
			})
			if accepted == 0 || refused == 0 {
				t.Errorf("%d were accepted and %d refused: that says little", accepted, refused)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	doc := load(t)
	for _, c := range []struct {
		pattern, target string
		header          http.Header
		field           string // "" is good
	}{
		{"GET /v1/sandboxes", "/v1/sandboxes?state=running&state=paused&metadata=a%3Db&limit=1000&cursor=x", nil, ""},
		{"GET /v1/sandboxes", "/v1/sandboxes?limit=0", nil, "limit"},
		{"GET /v1/sandboxes", "/v1/sandboxes?limit=1&limit=2", nil, "limit"},
		{"GET /v1/sandboxes", "/v1/sandboxes?limit=1.0", nil, "limit"},
		{"GET /v1/sandboxes", "/v1/sandboxes?state=running&state=asleep", nil, "state.1"},
		{"GET /v1/sandboxes", "/v1/sandboxes?metadata=b", nil, "metadata.0"},
		{"GET /v1/sandboxes", "/v1/sandboxes?" + strings.Repeat("state=running&", 10), nil, "state"},
		{"GET /v1/sandboxes", "/v1/sandboxes?cursor=%00", nil, "cursor"},
		{"GET /v1/sandboxes", "/v1/sandboxes?metadata=a%3D%FF", nil, "metadata"},
		{"GET /v1/sandboxes", "/v1/sandboxes?colour=red", nil, "colour"},
		{"GET /v1/sandboxes", "/v1/sandboxes", http.Header{KeyHeader: {"k"}}, KeyHeader},
		{"POST /v1/sandboxes", "/v1/sandboxes", http.Header{KeyHeader: {"k"}}, ""},
		{"POST /v1/sandboxes", "/v1/sandboxes", http.Header{KeyHeader: {strings.Repeat("k", 256)}}, KeyHeader},
		{"POST /v1/sandboxes", "/v1/sandboxes", http.Header{KeyHeader: {""}}, KeyHeader},
		{"GET /v1/sandboxes/{id}/files/watch", "/v1/sandboxes/cl-0123456789abcdefghij/files/watch?path=a&recursive=true", nil, ""},
		{"GET /v1/sandboxes/{id}/files/watch", "/v1/sandboxes/cl-0123456789abcdefghij/files/watch?path=a&recursive=1", nil, "recursive"},
		{"GET /v1/sandboxes/{id}/files/watch", "/v1/sandboxes/cl-0123456789abcdefghij/files/watch", nil, "path"},
		{"GET /v1/sandboxes/{id}/files/watch", "/v1/sandboxes/cl-0123456789abcdefghij/files/watch?path=", nil, "path"},
		{"GET /v1/sandboxes/{id}", "/v1/sandboxes/cl-0123456789abcdefghij", nil, ""},
		{"GET /v1/sandboxes/{id}", "/v1/sandboxes/cl-0123456789abcdefghi", nil, "id"},
		{"GET /v1/sandboxes/{id}", "/v1/sandboxes/cl-0123456789abcdefghij%0A", nil, "id"},
	} {
		op := doc.Operations[c.pattern]
		mux, err := http.NewServeMux(), error(nil)
		mux.HandleFunc(c.pattern, func(_ http.ResponseWriter, r *http.Request) { err = op.CheckParams(r) })
		method, _, _ := strings.Cut(c.pattern, " ")
		r := httptest.NewRequest(method, c.target, nil)
		maps.Copy(r.Header, c.header)
		mux.ServeHTTP(httptest.NewRecorder(), r)
		var field *errs.FieldError
		if errors.As(err, &field) != (c.field != "") || field != nil && field.Field != c.field {
			t.Errorf("%s %v: got %v, want field %q", c.target, c.header, err, c.field)
		}
	}
}

// TestBodiesThatAreBytes are nobody's to check, and a WebSocket is one where the document says so.
func TestBodiesThatAreBytes(t *testing.T) {
	raw, upgrades := []string{}, []string{}
	for _, op := range load(t).Operations {
		if op.Raw {
			raw = append(raw, op.ID)
		}
		if op.Upgrades {
			upgrades = append(upgrades, op.ID)
		}
	}
	if !slices.Equal(raw, []string{"writeFile"}) || !slices.Equal(upgrades, []string{"openTerminal"}) {
		t.Errorf("%v and %v", raw, upgrades)
	}
}

// TestMessages are checked by the name of their schema.
func TestMessages(t *testing.T) {
	doc := load(t)
	if err := doc.Check("TerminalControl", []byte(`{"type":"resize","cols":1,"rows":65535}`)); err != nil {
		t.Error(err)
	}
	var field *errs.FieldError
	if err := doc.Check("TerminalControl", []byte(`{"type":"resize","cols":0,"rows":1}`)); !errors.As(err, &field) || field.Field != "cols" {
		t.Error(err)
	}
	if err := doc.Check("TerminalControl", []byte(`{`)); !errors.As(err, &field) || field.Field != "TerminalControl" {
		t.Error(err)
	}
	if err := doc.Check("None", []byte(`{}`)); err == nil || errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

// TestWhatIsNotKnownIsRefused: a keyword that would be passed over is an error when the document is read.
func TestWhatIsNotKnownIsRefused(t *testing.T) {
	doc := func(operation, schema string) string {
		return `{"paths":{"/x":{"post":{` + operation + `"requestBody":{"content":{"application/json":{"schema":` + schema + `}}}}}}}`
	}
	if _, err := Load([]byte(doc(`"x-scope":"read",`, `{"type":"string"}`))); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]string{
		{`"x-scope":"read",`, `{"type":"string","oneOf":[]}`}, {`"x-scope":"read",`, `{"type":"number"}`}, {`"x-scope":"read",`, `{}`},
		{`"x-scope":"read",`, `{"$ref":"#/components/schemas/None"}`}, {`"x-scope":"read",`, `{"type":"array"}`},
		{`"x-scope":"read",`, `{"type":"string","pattern":"("}`}, {``, `{"type":"string"}`},
		{`"x-scope":"read","security":[],`, `{"type":"string"}`}, {`"x-scope":"read","parameters":[{"$ref":"#/none"}],`, `{"type":"string"}`},
	} {
		if _, err := Load([]byte(doc(c[0], c[1]))); err == nil {
			t.Errorf("%s %s was taken", c[0], c[1])
		}
	}
}

// FuzzCheckBody: whatever comes is refused or taken, and neither takes long.
func FuzzCheckBody(f *testing.F) {
	op := load(f).Operations["POST /v1/sandboxes"]
	for _, s := range []string{`{"template":"base"}`, `{"metadata":{"a":"b"}}`, `[]`, `{"vcpus":1e400}`, `{"a":{"b":[[[]]]}}`, "\xff", `""`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := op.CheckBody(body); err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", body, err)
		}
	})
}
