// Package extension is how a build of your own adds to the server without changing it: routes, work in the background, and handlers of events.
//
//	package main
//
//	func main() { os.Exit(wrenn.Main(os.Args[1:], audit.Extension{})) }
//
// That program is all of `wrenn`, with what the extension adds wherever a server runs: `wrenn server` and `wrenn up`. examples/extension is a whole one.
//
// An extension is part of the server and trusted as it is. What it does is held apart all the same: a panic in a route is an error of that request, one
// in a worker or in a handler of events is logged and begun again after a while, and none of them ends the server.
package extension

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Extension is what a build adds.
type Extension interface {
	// Name is the extension's among others, and in its addresses, logs and leases: at most 32 lower-case letters, digits and dashes, the first a letter.
	// It stays the same from release to release.
	Name() string
	// Start returns what it adds. It is called once, after the database is up to date and before the first request; an error keeps the server
	// from starting. The context ends with the start.
	Start(ctx context.Context, host Host) (Parts, error)
}

// Host is what a server gives an extension.
type Host struct {
	// Log carries the extension's name.
	Log *slog.Logger
	// Database is the server's. What an extension keeps there is in a schema of its own; the server's tables change from release to release, and are
	// not for it to write.
	Database *pgxpool.Pool
}

// Parts are what an extension adds. Each may be empty.
type Parts struct {
	Routes  []Route
	Workers []Worker
	// OnEvent is called with every change of a sandbox's state from the extension's first start on, of all teams, in the order in which they happened
	// to each sandbox, by one server at a time. It is called again, after a while, with an event for which it returned an error or panicked, and may be
	// called again with one that it has handled, when a server died meanwhile: an Event's ID tells.
	OnEvent func(ctx context.Context, e Event) error
}

// Route is one more thing that the API answers, below /ext/NAME. It passes what every request passes: a request id, a line in the log, a bound on its
// body of 2 MiB, and unless its scope is Public an API key, which Caller tells.
type Route struct {
	// Pattern is a method and a path as net/http.ServeMux has them, without /ext/NAME: "GET /greetings/{who}".
	Pattern string
	// Scope is what a key must be good for: "read", "write", "admin", "operator", or Public.
	Scope   string
	Handler http.Handler
}

// Public is the scope of a route that needs no key.
const Public = "public"

// Worker is work in the background.
type Worker struct {
	// Name is the worker's within the extension, with the same letters as an extension's.
	Name string
	// Run works until ctx ends: when the server stops, or when another server may have taken the work over. One server at a time runs it. When it
	// returns earlier, or panics, it is begun again after a while, which grows up to a minute while it fails.
	Run func(ctx context.Context) error
}

// Event is one change of a sandbox's state.
type Event struct {
	// ID is the same whenever the event is told, and no other event's.
	ID        string
	Team      string
	SandboxID string
	State     string
	Reason    string
	At        time.Time
}

// Identity is who made a request.
type Identity struct {
	// Team and Key are ids.
	Team, Key string
}

type callerKey struct{}

// Caller tells who made a request to a route that is not Public.
func Caller(ctx context.Context) Identity {
	who, _ := ctx.Value(callerKey{}).(Identity)
	return who
}

// WithCaller is for the server, and for tests of routes.
func WithCaller(ctx context.Context, who Identity) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}
