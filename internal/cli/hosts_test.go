package cli

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server"
)

func TestFlagsOfHosts(t *testing.T) {
	for name, f := range map[string]serverFlags{
		"a lease that no report comes in": {lease: time.Millisecond},
		"an address for nothing":          {hostsAddress: "wrenn.example.org:7444"},
		"an address of all addresses":     {hostsListen: "0.0.0.0:0"},
		"an address without a port":       {hostsListen: "127.0.0.1:0", hostsAddress: "wrenn.example.org"},
		"an address to listen on":         {hostsListen: "nowhere"},
	} {
		var cfg server.Config
		if l, err := f.forHosts(&cfg); l != nil || !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v %v", name, l, err)
		}
	}
	var cfg server.Config
	l, err := (&serverFlags{hostsListen: "127.0.0.1:0"}).forHosts(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if cfg.HostsAddress != l.Addr().String() {
		t.Errorf("hosts find it at %q, and it listens on %v", cfg.HostsAddress, l.Addr())
	}
}

func TestFlagsOfMembers(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for name, f := range map[string]agentFlags{
		"no token":              {join: "wrennjoin_"},
		"no server's address":   {server: "nowhere"},
		"no address of its own": {advertise: ":7443"},
	} {
		if m, err := f.member(t.Context(), t.TempDir(), log); m != nil || !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v %v", name, m, err)
		}
	}
	if m, err := (&agentFlags{}).member(t.Context(), t.TempDir(), log); m != nil || err != nil {
		t.Errorf("a machine that is nobody's host: %v %v", m, err)
	}
}
