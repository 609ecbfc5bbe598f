package envd

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/envd/files"
	"wrenn.dev/wrenn/internal/guest/envd/process"
)

// TestSigned: a signature opens one path, for one operation, by one user, until it expires.
func TestSigned(t *testing.T) {
	base, home, _ := serveFiles(t)
	if err := os.WriteFile(filepath.Join(home, "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	sign := func(op files.Operation, path, user string, exp *int64) string {
		return files.Sign(token, op, path, user, exp)
	}
	text := func(n int64) string { return fmt.Sprint(n) }
	kind, named := form("home.txt", "x")
	_, elsewhere := form("/tmp/x.txt", "x")
	for name, c := range map[string]struct {
		method string
		query  url.Values
		status int
	}{
		"read":             {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil)), 200},
		"HEAD":             {"HEAD", filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil)), 200},
		"as a user":        {"GET", filesQuery("path", "f", "username", "user", "signature", sign(files.Read, "f", "user", nil)), 200},
		"in time":          {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", &soon), "signature_expiration", text(soon)), 200},
		"late":             {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", &past), "signature_expiration", text(past)), 401},
		"a longer time":    {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", &past), "signature_expiration", text(soon)), 401},
		"no time":          {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", &past)), 401},
		"another path":     {"GET", filesQuery("path", "./f", "signature", sign(files.Read, "f", "", nil)), 401},
		"another user":     {"GET", filesQuery("path", "f", "username", "root", "signature", sign(files.Read, "f", "", nil)), 401},
		"to write":         {"POST", filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil)), 401},
		"no signature":     {"GET", filesQuery("path", "f", "signature", ""), 401},
		"another's token":  {"GET", filesQuery("path", "f", "signature", files.Sign("x", files.Read, "f", "", nil)), 401},
		"cut off":          {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil)[:20]), 401},
		"write":            {"POST", filesQuery("path", "w", "signature", sign(files.Write, "w", "", nil)), 200},
		"write with PUT":   {"PUT", filesQuery("path", "w", "signature", sign(files.Write, "w", "", nil)), 200},
		"write with mode":  {"POST", filesQuery("path", "w", "mode", "777", "signature", sign(files.Write, "w", "", nil)), 400},
		"write to read":    {"GET", filesQuery("path", "f", "signature", sign(files.Write, "f", "", nil)), 401},
		"twice a path":     {"GET", url.Values{"path": {"f", "/etc/passwd"}, "signature": {sign(files.Read, "f", "", nil)}}, 401},
		"no number":        {"GET", filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil), "signature_expiration", "soon"), 401},
		"a colon in names": {"GET", filesQuery("path", "f", "username", "a:b", "signature", sign(files.Read, "f", "a:b", nil)), 401},
	} {
		t.Run(name, func(t *testing.T) {
			status, _, body := askFiles(t, base, c.method, c.query, "new", map[string]string{headerToken: "", "Content-Type": octets})
			if status != c.status {
				t.Errorf("got %d %s, want %d", status, body, c.status)
			}
		})
	}
	noPath := filesQuery("signature", sign(files.Write, "", "", nil))
	for body, want := range map[string]int{named: 200, elsewhere: 400} {
		if status, _, answer := askFiles(t, base, "POST", noPath, body, map[string]string{headerToken: "", "Content-Type": kind}); status != want {
			t.Errorf("no path: got %d %s, want %d", status, answer, want)
		}
	}
	signed := filesQuery("path", "f", "signature", sign(files.Read, "f", "", nil))
	if status, _, _ := askFiles(t, base, "GET", signed, "", map[string]string{headerToken: "wrong"}); status != 401 {
		t.Errorf("a wrong token beside a signature: got %d", status)
	}
}

// frozen is a machine that can be frozen.
type frozen struct{}

func (frozen) Freeze() error { return nil }

func (frozen) Distinguish(context.Context, clone.Identity) (clone.Report, error) {
	return clone.Report{}, nil
}

// TestSignaturesEndWithTheToken: a frozen envd takes none and has forgotten the token, and an awake one those of its own alone.
func TestSignaturesEndWithTheToken(t *testing.T) {
	s := New(Config{Source: identity(), Machine: frozen{}, Users: users(t), Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler)})
	signed := s.cfg.Source.(*signatures)
	q := files.Query{Path: "f", Signature: files.Sign(token, files.Read, "f", "", nil)}
	if _, err := signed.check(q, files.Read); err == nil {
		t.Error("before the token is known")
	}
	if _, err := s.waker.wake(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := signed.check(q, files.Read); err != nil {
		t.Error(err)
	}
	s.gate.close()
	if _, err := signed.check(q, files.Read); err == nil {
		t.Error("while it is frozen")
	}
	if signed.settle(); signed.token != nil {
		t.Error("the token is kept")
	}
	s.waker.stop()
}

// TestPagesOfAnyOrigin may ask, and are told what they may send before they show a token.
func TestPagesOfAnyOrigin(t *testing.T) {
	base, _, _ := serveFiles(t)
	status, head, _ := askFiles(t, base, "OPTIONS", nil, "", map[string]string{headerToken: "", "Origin": "https://x", "Access-Control-Request-Method": "POST"})
	if status != 204 || head.Get("Access-Control-Allow-Origin") != "*" || head.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("before: got %d %v", status, head)
	}
	status, head, _ = askFiles(t, base, "GET", filesQuery("path", "nope"), "", nil)
	if status != 404 || head.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("an error: got %d %v", status, head)
	}
	status, _, _ = askFiles(t, base, "OPTIONS", nil, "", map[string]string{headerToken: ""})
	if status != 401 {
		t.Errorf("no page's question: got %d", status)
	}
}
