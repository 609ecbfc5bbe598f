// Package envdtest runs a real envd in the process of a test, for tests of what speaks to one: the guest is this machine, and its one
// user, "user", is who runs the test, with a home of his own.
//
//	g := envdtest.Start(t)
//	files := client.New(g.Dial, g.Token).Files("")
package envdtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/guest/envd"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// Guest is a running envd.
type Guest struct {
	Token string
	Home  string // of its user
	addr  string
}

// identity is known from the start.
type identity struct{ token string }

// Identity implements envd.Source.
func (i identity) Identity(context.Context) (envd.Identity, error) {
	return envd.Identity{Token: i.token, SandboxID: "cl-0123456789abcdefghij", TemplateID: "base"}, nil
}

// Start starts one, which ends with the test.
func Start(t testing.TB) *Guest {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{Token: "0123456789abcdef0123456789abcdef", Home: filepath.Join(dir, "home")}
	if err := os.Mkdir(g.Home, 0o755); err != nil {
		t.Fatal(err)
	}
	db := user.DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	line := fmt.Sprintf("user:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), g.Home)
	if err := os.WriteFile(db.Passwd, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = ln.Addr().String()
	server := envd.New(envd.Config{Source: identity{g.Token}, Users: db, Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return g
}

// Dial connects to it, whatever the port.
func (g *Guest) Dial(ctx context.Context, _ int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", g.addr)
}
