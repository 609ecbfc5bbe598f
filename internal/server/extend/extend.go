// Package extend has a server do what extensions add to it: it starts them, answers their routes, runs their workers and tells them of events.
//
//	set, err := extend.Start(ctx, extend.Config{Store: s, Log: log}, extensions)
//	err = set.Mount(add)                                     // what answers below /ext/
//	set.Run(ctx)                                             // workers and handlers of events, until ctx ends
//
// Workers and handlers run under leases in the database: on one server at a time, on another when that one is gone. Nothing that an extension does
// there ends the server.
package extend

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/lease"
	"wrenn.dev/wrenn/internal/server/store"
)

// Prefix is where routes of extensions are.
const Prefix = "/ext/"

// names are what extensions and workers may be called.
var names = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Config is what extensions work with.
type Config struct {
	Store *store.Store
	Log   *slog.Logger
}

// Set is the extensions of a server.
type Set struct {
	Config
	started []started
}

type started struct {
	name string
	log  *slog.Logger
	extension.Parts
}

// Start starts extensions, in their order. An extension's name, a worker's or a pattern that is not as it should be is an error, as is a panic.
func Start(ctx context.Context, c Config, extensions []extension.Extension) (*Set, error) {
	set := &Set{Config: c}
	taken := map[string]bool{}
	for _, e := range extensions {
		name := e.Name()
		if !names.MatchString(name) || taken[name] {
			return nil, fmt.Errorf("extension %.40q: its name is taken, or no name of at most 32 lower-case letters, digits and dashes: %w", name, errs.ErrInvalid)
		}
		taken[name] = true
		log := c.Log.With("extension", name)
		parts, err := startOne(ctx, e, extension.Host{Log: log, Database: c.Store.Connections()})
		if err != nil {
			return nil, fmt.Errorf("extension %s does not start: %w", name, err)
		}
		workers := map[string]bool{}
		for _, w := range parts.Workers {
			if !names.MatchString(w.Name) || workers[w.Name] || w.Run == nil {
				return nil, fmt.Errorf("extension %s: worker %.40q has no name of its own, or nothing to run: %w", name, w.Name, errs.ErrInvalid)
			}
			workers[w.Name] = true
		}
		set.started = append(set.started, started{name, log, parts})
	}
	return set, nil
}

func startOne(ctx context.Context, e extension.Extension, host extension.Host) (_ extension.Parts, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return e.Start(ctx, host)
}

// Mount gives each route to add, which has it answer a pattern of net/http.ServeMux's for callers with the scope; an empty one lets everybody in. A
// pattern that is none, or is taken, is an error.
func (s *Set) Mount(add func(pattern, scope string, h http.Handler)) error {
	for _, e := range s.started {
		for _, r := range e.Routes {
			if err := e.mount(add, r); err != nil {
				return fmt.Errorf("extension %s: route %.80q: %w", e.name, r.Pattern, err)
			}
		}
	}
	return nil
}

// scopes are those that a route may have.
var scopes = map[string]string{extension.Public: "", "read": "read", "write": "write", "admin": "admin", "operator": "operator"}

func (e *started) mount(add func(pattern, scope string, h http.Handler), r extension.Route) (err error) {
	scope, ok := scopes[r.Scope]
	if !ok {
		return fmt.Errorf("its scope %.20q is none of read, write, admin, operator and public: %w", r.Scope, errs.ErrInvalid)
	}
	method, path, ok := strings.Cut(r.Pattern, " ")
	if !ok || !strings.HasPrefix(path, "/") || r.Handler == nil {
		return fmt.Errorf("it is no method and path with a handler, such as \"GET /greetings/{who}\": %w", errs.ErrInvalid)
	}
	defer func() {
		if p := recover(); p != nil { // so says the mux
			err = fmt.Errorf("%v: %w", p, errs.ErrInvalid)
		}
	}()
	base := Prefix + e.name
	add(method+" "+base+path, scope, http.StripPrefix(base, r.Handler))
	return nil
}

// Run runs workers and tells of events until ctx ends, and returns when all of them have.
func (s *Set) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, e := range s.started {
		for _, w := range e.Workers {
			running.Go(func() {
				lease.Run(ctx, s.Store, lease.Config{Name: "ext/" + e.name + "/" + w.Name, Log: e.log},
					func(ctx context.Context, _ store.Term) error { return w.Run(ctx) })
			})
		}
		if e.OnEvent != nil {
			running.Go(func() {
				r := reader{s.Store, e.place(), e.OnEvent}
				lease.Run(ctx, s.Store, lease.Config{Name: e.place(), Log: e.log}, r.read)
			})
		}
	}
	running.Wait()
}

// place is the name of what an extension has read of the events, and of the lease to do so.
func (e *started) place() string { return "ext/" + e.name }
