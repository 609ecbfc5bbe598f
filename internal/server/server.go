// Package server is the control plane: the REST API, and pages to try it, over a database and the agents of hosts, and the way to sandboxes' ports.
//
//	s, err := server.Open(ctx, server.Config{DatabaseURL: url, Agent: "unix:///run/wrenn/agent.sock"})
//	defer s.Close()
//	key, err := s.FirstKey(ctx)            // once in a database's life
//	err = s.Serve(ctx, listener)           // until ctx ends
//
// It keeps nothing outside the database: it may be killed at any line, and several may run side by side.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/api"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/extend"
	"wrenn.dev/wrenn/internal/server/hooks"
	"wrenn.dev/wrenn/internal/server/hosts"
	"wrenn.dev/wrenn/internal/server/metrics"
	"wrenn.dev/wrenn/internal/server/pages"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/proxy"
	"wrenn.dev/wrenn/internal/server/store"
)

// Config is what a server works with.
type Config struct {
	// DatabaseURL is PostgreSQL's.
	DatabaseURL string
	// Agent is how the agent on this machine is reached: "unix:///run/wrenn/agent.sock". Empty when there is none.
	Agent string
	// Webhooks says where their messages may go.
	Webhooks hooks.Targets
	// Extensions add to it.
	Extensions []extension.Extension
	// HostsAddress is where hosts that are to join find ServeHosts: host:port. Empty when it is not served.
	HostsAddress string
	// Lease is how long a host may be silent before it is lost; zero is half a minute. All servers of a database have the same.
	Lease time.Duration
	// Domain is where sandboxes' ports are; the zero value is localhost, at HTTP's own port.
	Domain portname.Domain
	// Log gets a line of each request; nil is slog's default.
	Log *slog.Logger
}

// Server is one that is ready to serve.
type Server struct {
	log     *slog.Logger
	store   *store.Store
	agent   *client.Client // nil when there is none on this machine
	hosts   *hosts.Hosts
	auth    *auth.Auth
	control *control.Control
	hooks   *hooks.Hooks
	added   *extend.Set
	metrics *metrics.Metrics
	proxy   *proxy.Proxy
	handler http.Handler
}

// GCPercent is what a server's process sets: its live memory is small, and collecting it less often than by default costs little of it and gives a
// twentieth more requests.
const GCPercent = 400

const (
	// firstTeam is whose the first key is.
	firstTeam = "default"
	// keep is how long ended sandboxes and events are kept, and tidyTime how often what is older goes.
	keep     = 7 * 24 * time.Hour
	tidyTime = time.Hour
)

// Open connects to the database and brings it up to date. The agent need not answer yet.
func Open(ctx context.Context, c Config) (*Server, error) {
	socket, ok := strings.CutPrefix(c.Agent, "unix://")
	if c.Agent != "" && (!ok || !filepath.IsAbs(socket)) {
		return nil, errs.Field("--agent", c.Agent+" is no agent's address", "give one such as unix:///run/wrenn/agent.sock")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Domain == (portname.Domain{}) {
		c.Domain = portname.Domain{Scheme: "http", Name: "localhost"}
	}
	st, err := store.Open(ctx, c.DatabaseURL)
	if err != nil {
		return nil, err
	}
	m := metrics.New(st)
	s := &Server{log: c.Log, store: st, auth: auth.New(st), metrics: m}
	if s.hosts, err = hosts.New(ctx, hosts.Config{Store: st, Address: c.HostsAddress, Lease: c.Lease, Observe: m.Call, Log: c.Log}); err != nil {
		st.Close()
		return nil, err
	}
	if c.Agent != "" {
		host, err := st.Host(ctx, c.Agent)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.agent = client.Unix(socket, client.Observe(m.Call))
		s.hosts.Own(host.ID, s.agent)
	}
	s.control = control.New(st, s.hosts, c.Log)
	s.proxy = proxy.New(proxy.Config{Domain: c.Domain, Sandboxes: s.control, Log: c.Log})
	s.hooks = hooks.New(st, c.Webhooks, c.Log)
	s.hooks.Observe, s.hooks.Held = m.Delivery, m.Lease("webhooks")
	if s.added, err = extend.Start(ctx, extend.Config{Store: st, Log: c.Log}, c.Extensions); err != nil {
		s.Close()
		return nil, err
	}
	handler, err := api.New(api.Config{Store: st, Control: s.control, Auth: s.auth, Hosts: s.hosts, Domain: c.Domain, Targets: c.Webhooks, Extensions: s.added, Observe: m.Request,
		Log: c.Log})
	if err != nil {
		s.Close()
		return nil, err
	}
	s.handler = s.proxy.Handler(pages.Beside(handler))
	return s, nil
}

// FirstKey makes the first API key, an operator's, and returns it; empty when there are keys.
func (s *Server) FirstKey(ctx context.Context) (string, error) {
	if has, err := s.store.HasKeys(ctx); has || err != nil {
		return "", err
	}
	team, err := s.store.Team(ctx, firstTeam)
	if err != nil {
		return "", err
	}
	secret, _, err := s.auth.Issue(ctx, auth.Request{Team: team.ID, Name: "first", Scopes: auth.Scopes})
	return secret, err
}

// Metrics serves the server's metrics to Prometheus. They are no part of the API: they tell of all teams together, and have no key.
func (s *Server) Metrics() http.Handler { return s.metrics.Handler() }

// Close gives the connections up.
func (s *Server) Close() {
	s.proxy.Close()
	s.hosts.Close()
	if s.agent != nil {
		s.agent.Close()
	}
	s.store.Close()
}

// What a caller may take: one that says nothing holds nothing for ever.
const (
	headerTime     = 10 * time.Second
	idleTime       = 620 * time.Second // a proxy before it, which closes after ten minutes as a rule, is to be the first
	maxHeaderBytes = 64 << 10
	// grace is how long requests may take to end once the server is told to stop. Operations go on beyond it, see Serve.
	grace = 5 * time.Second
)

// ServeHosts has hosts join and report on a listener, with TLS, until ctx ends. It is called beside Serve.
func (s *Server) ServeHosts(ctx context.Context, l net.Listener) error { return s.hosts.Serve(ctx, l) }

// Serve answers on the listener until ctx ends, follows what happens on the hosts, and tidies up. When ctx ends it waits for the operations that
// are under way; those that are cut off all the same, another server finds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Streams that have no end of their own end with this.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{Handler: s.handler, Protocols: protocols, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return requests }}
	background, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { s.hosts.Run(background) })
	running.Go(func() { s.control.Watch(background) })
	running.Go(func() { s.hooks.Run(background) })
	running.Go(func() { s.added.Run(background) })
	running.Go(func() { s.tidy(background) })
	running.Go(func() {
		if err := s.auth.Run(background); err != nil {
			s.log.Warn("when API keys were last used was not written", "error", err)
		}
	})
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	time.AfterFunc(grace/2, cut) // who follows a stream is told by its end
	if h.Shutdown(shut) != nil {
		_ = h.Close()
	}
	s.control.Wait()
	stop()
	running.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// tidy removes what has been kept long enough, now and then.
func (s *Server) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyTime)
	defer tick.Stop()
	for {
		if err := s.store.Tidy(ctx, keep); err != nil && ctx.Err() == nil {
			s.log.Warn("what is old was not removed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
