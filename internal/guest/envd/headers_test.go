package envd

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

func basic(user string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(user)) }

func TestRequestUser(t *testing.T) {
	db := users(t)
	for _, c := range []struct{ header, name, fault string }{
		{"", "user", ""},
		{basic("user:"), "user", ""},
		{basic("root:ignored"), "root", ""},
		{basic(":"), "user", ""},
		{"Bearer x", "user", ""},
		{"Basic %%%", "user", ""},
		{basic("nobody:"), "", "invalid username: 'nobody'"},
		{basic("user\nroot:"), "", "invalid username"},
		{basic(strings.Repeat("u", 1000) + ":"), "", "invalid username of 1000 bytes"},
	} {
		u, err := requestUser(http.Header{"Authorization": {c.header}}, db)
		if c.fault == "" && (err != nil || u.Name != c.name) {
			t.Errorf("%q: got %v, %v", c.header, u, err)
		}
		if c.fault != "" && (!errors.Is(err, errs.ErrUnauthenticated) || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%q: got %v, want ErrUnauthenticated with %q", c.header, err, c.fault)
		}
	}
}

func TestKeepaliveHeader(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": defaultKeepalive, "0": defaultKeepalive, "-5": defaultKeepalive, "x": defaultKeepalive, "1.5": defaultKeepalive,
		"99999999999999999999": defaultKeepalive, "50": 50 * time.Second, "1": time.Second, "2000000000": maxKeepalive,
	} {
		if got := keepalive(http.Header{headerKeepalive: {text}}); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestNormalizeTimeout(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "0": "", "-1": "", "-9999999999": "", "+0": "", "1": "1", "60000": "60000", "x": "x", "99999999999999999999": "99999999999999999999",
	} {
		h := http.Header{}
		h.Set(headerTimeout, text)
		if normalizeTimeout(h); h.Get(headerTimeout) != want {
			t.Errorf("%q: got %q, want %q", text, h.Get(headerTimeout), want)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("Basic dXNlcjo=", "50", "60000")
	f.Add("", "-1", "-1")
	f.Fuzz(func(t *testing.T, authorization, ping, timeout string) {
		h := http.Header{}
		h.Set("Authorization", authorization)
		h.Set(headerKeepalive, ping)
		h.Set(headerTimeout, timeout)
		if d := keepalive(h); d < time.Second || d > maxKeepalive {
			t.Errorf("keepalive %q: %v", ping, d)
		}
		normalizeTimeout(h)
		if strings.HasPrefix(h.Get(headerTimeout), "-1") && len(h.Get(headerTimeout)) == 2 {
			t.Errorf("timeout %q stays", timeout)
		}
		if name, _, ok := (&http.Request{Header: h}).BasicAuth(); ok && len(name) > maxUserName {
			if _, err := requestUser(h, users(t)); err == nil {
				t.Error("a long name is a user")
			}
		}
	})
}

func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code connect.Code
	}{
		{fault.New(errs.ErrInvalid, "x"), connect.CodeInvalidArgument},
		{fmt.Errorf("x: %w", errs.ErrNotFound), connect.CodeNotFound},
		{errs.ErrAlreadyExists, connect.CodeAlreadyExists},
		{errs.ErrFailedPrecondition, connect.CodeFailedPrecondition},
		{errs.ErrResourceExhausted, connect.CodeResourceExhausted},
		{errs.ErrUnavailable, connect.CodeUnavailable},
		{errs.ErrUnauthenticated, connect.CodeUnauthenticated},
		{errs.ErrCorrupt, connect.CodeDataLoss},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{context.Canceled, connect.CodeCanceled},
		{errors.New("x"), connect.CodeInternal},
		{connect.NewError(connect.CodeAborted, errors.New("x")), connect.CodeAborted},
	} {
		if got := connect.CodeOf(toConnect(c.err)); got != c.code {
			t.Errorf("%v: got %v, want %v", c.err, got, c.code)
		}
	}
	if toConnect(nil) != nil {
		t.Error("no error became one")
	}
	if got := fault.New(errs.ErrInvalid, "cwd '%s'", "x").Error(); got != "cwd 'x'" {
		t.Errorf("a fault reads %q", got)
	}
}
