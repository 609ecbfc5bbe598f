package client_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/servertest"
)

// demo is the server that the examples speak to.
var demo struct{ url, key string }

func TestMain(m *testing.M) {
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzz=") || a == "-test.fuzzworker" }) {
		os.Exit(m.Run()) // what is fuzzed needs no server
	}
	os.Exit(postgrestest.Main(m))
}

// newWorld is a real server and a real agent, whose host is in memory; the guest is a real envd, and so commands are this machine's.
func newWorld(t testing.TB) *servertest.World {
	t.Helper()
	return servertest.New(t, servertest.Config{Guest: servertest.OnThisMachine(t)})
}

func newClient(t testing.TB, w *servertest.World, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(w.URL, append([]client.Option{client.WithAPIKey(w.Key)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// exampleTB is a testing.TB for examples, which are given none. It has what a world asks for.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (e *exampleTB) Helper()                  {}
func (e *exampleTB) Name() string             { return "Example" }
func (e *exampleTB) Context() context.Context { return context.Background() }
func (e *exampleTB) Cleanup(f func())         { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Error(args ...any)        { fmt.Println(args...) } // its output is wrong then, and so it fails
func (e *exampleTB) Errorf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
}
func (e *exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (e *exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (e *exampleTB) Log(...any)                        {}
func (e *exampleTB) Logf(string, ...any)               {}
func (e *exampleTB) Output() io.Writer                 { return io.Discard }

// TempDir implements testing.TB.
func (e *exampleTB) TempDir() string {
	dir, err := os.MkdirTemp("/tmp", "wrenn-example-")
	if err != nil {
		panic(err)
	}
	e.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve has a server for an example, until the returned function is called.
func serve() (stop func()) {
	e := &exampleTB{}
	w := newWorld(e)
	demo.url, demo.key = w.URL, w.Key
	return func() {
		for len(e.cleanups) > 0 {
			last := len(e.cleanups) - 1
			do := e.cleanups[last]
			e.cleanups = e.cleanups[:last]
			do()
		}
	}
}
