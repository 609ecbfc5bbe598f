// Package servertest runs a server for tests: the real API, control and agent on a real database, over a host in memory.
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
//	w := servertest.New(t, servertest.Config{})
//	resp, err := http.Get(w.URL + "/healthz")       // w.Key is a key with every scope
package servertest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/extension"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
	"wrenn.dev/wrenn/internal/server/api"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/extend"
	"wrenn.dev/wrenn/internal/server/hooks"
	"wrenn.dev/wrenn/internal/server/hosts"
	"wrenn.dev/wrenn/internal/server/pages"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/proxy"
	"wrenn.dev/wrenn/internal/server/store"
)

// Config says what is not as usual.
type Config struct {
	// Limits are the host's; zero ones are none.
	Limits quota.Amount
	// Extensions add to the server.
	Extensions []extension.Extension
	// Guest speaks to a guest, whichever sandbox's it is; nil is one whose files are in Home, and which runs a few programs.
	Guest func(dial sandbox.DialFunc, token string) hostagent.Guest
	// Lease is how long the host may be silent; zero is hosts.DefaultLease.
	Lease time.Duration
}

// World is a server on a real database, with the real agent on a host in memory behind a real socket.
type World struct {
	// Host is the agent's, with the faults that it is told to have.
	*sandboxtest.Host
	Store *store.Store
	// Database is its URL.
	Database string
	Auth     *auth.Auth
	Control  *control.Control
	Agent    *hostagent.Agent
	// AsHost is the host as control knows it.
	AsHost control.Host
	Hosts  *hosts.Hosts
	// HTTP serves the API and the pages at URL, and the ports of sandboxes under the names that Domain gives them.
	HTTP   *httptest.Server
	URL    string
	Domain portname.Domain
	// Ports are those of every guest.
	Ports *Ports
	// Socket is the agent's.
	Socket string
	// Team has Key, which has every scope.
	Team, Key string
	// Home is where the files of every sandbox are: all of them have the same guest, which is a real envd on this machine, and see nothing
	// but this folder.
	Home string

	t testing.TB
}

// nowhere finds no name but this machine's: no test sends anything to another.
var nowhere = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("tests ask no name server")
}}

// New returns a world that ends with the test.
func New(t testing.TB, c Config) *World {
	t.Helper()
	w := &World{Host: sandboxtest.NewHost(t), Ports: &Ports{}, t: t}
	w.Network.Guest = w.Ports.dial
	ctx, stop := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	speak := c.Guest
	if speak == nil {
		envd, dial := fenced(t)
		w.Home = envd.Home
		speak = func(sandbox.DialFunc, string) hostagent.Guest {
			return shell{guest.New(envd.Dial, envd.Token), guest.New(dial, envd.Token)}
		}
	}
	w.Agent, err = hostagent.Start(ctx, hostagent.Config{Manager: w.Manager(t), StateDir: w.StateDir, Limits: c.Limits, Log: log, Guest: speak})
	must(err)
	w.Socket = filepath.Join(t.TempDir(), "agent.sock")
	listener, err := rpc.Unix(w.Socket)
	must(err)
	var running sync.WaitGroup
	running.Go(func() { _ = rpc.Serve(ctx, rpc.Handler(w.Agent), 10*time.Millisecond, listener) })
	w.Database = postgrestest.Database(t)
	w.Store, err = store.Open(ctx, w.Database)
	must(err)
	host, err := w.Store.Host(ctx, "unix://"+w.Socket)
	must(err)
	agent := client.Unix(w.Socket)
	w.AsHost = control.Host{ID: host.ID, Client: agent}
	w.Hosts, err = hosts.New(ctx, hosts.Config{Store: w.Store, Address: "127.0.0.1:1", Lease: c.Lease, Log: log})
	must(err)
	w.Hosts.Own(host.ID, agent)
	w.Control, w.Auth = control.New(w.Store, w.Hosts, log), auth.New(w.Store)
	running.Go(func() { w.Hosts.Run(ctx) })
	running.Go(func() { w.Control.Watch(ctx) })
	targets := hooks.Targets{Private: true, Resolver: nowhere} // receivers are on this machine
	running.Go(func() { hooks.New(w.Store, targets, log).Run(ctx) })
	added, err := extend.Start(ctx, extend.Config{Store: w.Store, Log: log}, c.Extensions)
	must(err)
	running.Go(func() { added.Run(ctx) })
	w.HTTP = httptest.NewUnstartedServer(nil)
	w.Domain, err = portname.Parse("localhost", w.HTTP.Listener.Addr().(*net.TCPAddr).Port)
	must(err)
	handler, err := api.New(api.Config{Store: w.Store, Control: w.Control, Auth: w.Auth, Hosts: w.Hosts, Domain: w.Domain, Targets: targets, Extensions: added, Log: log})
	must(err)
	ports := proxy.New(proxy.Config{Domain: w.Domain, Sandboxes: w.Control, Log: log})
	w.HTTP.Config.Handler = ports.Handler(pages.Beside(handler))
	w.HTTP.Config.Protocols = new(http.Protocols)
	w.HTTP.Config.Protocols.SetHTTP1(true)
	w.HTTP.Config.Protocols.SetUnencryptedHTTP2(true)
	w.HTTP.Start()
	w.URL = w.HTTP.URL
	w.Team, w.Key = w.NewTeam("ours")
	w.HostIs(host.ID, store.HostUp)
	t.Cleanup(func() {
		w.HTTP.CloseClientConnections()
		w.HTTP.Close()
		ports.Close()
		w.Control.Wait()
		stop()
		running.Wait()
		w.Hosts.Close()
		agent.Close()
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.Agent.Close(closing); err != nil {
			t.Error(err)
		}
		w.Store.Close()
	})
	return w
}

// HostIs waits until a host is in a state.
func (w *World) HostIs(host, state string) {
	w.t.Helper()
	var h store.Host
	for deadline := time.Now().Add(20 * time.Second); h.State != state; time.Sleep(5 * time.Millisecond) {
		var err error
		if h, err = w.Store.GetHost(w.t.Context(), host); err != nil || time.Now().After(deadline) {
			w.t.Fatalf("host %s is %q, want %q: %v", host, h.State, state, err)
		}
	}
}

// NewTeam makes a team and a key of it with every scope.
func (w *World) NewTeam(name string) (team, key string) {
	w.t.Helper()
	made, err := w.Store.Team(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return made.ID, w.NewKey(made.ID, auth.Scopes...)
}

// NewKey makes a key of a team.
func (w *World) NewKey(team string, scopes ...string) string {
	w.t.Helper()
	secret, _, err := w.Auth.Issue(w.t.Context(), auth.Request{Team: team, Name: "test", Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}
