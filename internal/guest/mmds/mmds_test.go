package mmds

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

const sample = `{"WRENN_SANDBOX_ID":"cl-1","WRENN_TEMPLATE_ID":"base","WRENN_HOSTNAME":"box",` +
	`"WRENN_ENVD_TOKEN":"secret","WRENN_DNS":"9.9.9.9","WRENN_START":"s1","other":{"a":1}}`

// service answers as Firecracker does: a token for a PUT with a lifetime, the document for a GET with the token.
func service(t *testing.T, document func() (int, string)) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" &&
			r.Header.Get("X-Metadata-Token-Ttl-Seconds") == "60":
			_, _ = w.Write([]byte("the-token"))
		case r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("X-Metadata-Token") == "the-token" &&
			r.Header.Get("Accept") == "application/json":
			status, body := document()
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return &Client{BaseURL: s.URL}
}

func TestFetch(t *testing.T) {
	c := service(t, func() (int, string) { return 200, sample })
	got, err := c.Fetch(t.Context())
	want := Document{SandboxID: "cl-1", TemplateID: "base", Hostname: "box", EnvdToken: "secret", DNS: "9.9.9.9", Start: "s1"}
	if err != nil || got != want {
		t.Fatalf("Fetch = %+v, %v; want %+v", got, err, want)
	}
}

func TestFetchTriesAgain(t *testing.T) {
	var calls atomic.Int32
	c := service(t, func() (int, string) {
		switch calls.Add(1) {
		case 1:
			return 404, "nothing here yet"
		case 2:
			return 200, "not json"
		case 3:
			return 200, strings.Repeat(" ", MaxDocument+1)
		case 4:
			return 302, ""
		}
		return 200, `{"WRENN_SANDBOX_ID":"cl-2"}`
	})
	got, err := c.Fetch(t.Context())
	if err != nil || got != (Document{SandboxID: "cl-2"}) || calls.Load() != 5 {
		t.Fatalf("Fetch = %+v, %v after %d calls", got, err, calls.Load())
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	c := service(t, func() (int, string) { return 404, "no" })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Fetch(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Fetch = %v; want the context's end in it", err)
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     Document
		err      error
	}{
		{"empty", `{}`, Document{}, nil},
		{"null document", `null`, Document{}, nil},
		{"unknown keys", `{"x":[1]}`, Document{}, nil},
		{"number", `{"WRENN_DNS":5}`, Document{}, errs.ErrInvalid},
		{"array", `[]`, Document{}, errs.ErrInvalid},
		{"cut", `{"WRENN_DNS":"5`, Document{}, errs.ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse([]byte(tc.in))
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("Parse = %+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestParseKeepsTheTokenOutOfErrors(t *testing.T) {
	_, err := Parse([]byte(`{"WRENN_ENVD_TOKEN":["hunter2"]}`))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("Parse = %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"WRENN_DNS":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := Parse(in); err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Parse: %v is not ErrInvalid", err)
		}
	})
}
