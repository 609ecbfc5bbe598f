package api_test

import (
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

// joined makes a host that joined but whose agent is nowhere.
func (w *world) joined() string {
	w.t.Helper()
	made := as[rest.HostToken](w.t, w.do(call{method: "POST", path: "/v1/hosts/tokens", body: `{}`}), 201)
	token, err := pki.ParseToken(made.Token)
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := w.Store.Join(w.t.Context(), token.Hash(), []byte(made.ID), 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return h.ID
}

func TestHosts(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 3, VCPUs: 4, MemoryMiB: 4096, DiskBytes: 1 << 40})
	sb, own := w.create(`{"template":"base"}`), w.AsHost.ID
	at := "/v1/hosts/" + own
	host := as[rest.Host](t, w.do(call{method: "GET", path: at}), 200)
	if host.State != rest.HostUp || host.Capacity.MemoryMib != 4096 || host.Reserved.Vcpus != 1 || host.Reserved.MemoryMib != 256 ||
		len(host.Templates) != 1 || host.Templates[0] != "base" {
		t.Errorf("%+v", host)
	}
	fails(t, w.do(call{method: "DELETE", path: at}), 409, rest.FailedPrecondition)
	other := w.joined()
	list := as[rest.HostPage](t, w.do(call{method: "GET", path: "/v1/hosts"}), 200)
	if len(list.Hosts) != 2 {
		t.Errorf("%+v", list)
	}
	if first := as[rest.HostPage](t, w.do(call{method: "GET", path: "/v1/hosts?limit=1"}), 200); len(first.Hosts) != 1 || or(first.NextCursor) == "" {
		t.Errorf("%+v", first)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/hosts/" + other}), 204)
	if gone := as[rest.Host](t, w.do(call{method: "GET", path: "/v1/hosts/" + other}), 200); gone.State != rest.HostRemoved {
		t.Errorf("%+v", gone)
	}
	fails(t, w.do(call{method: "POST", path: "/v1/hosts/" + other + "/drain"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "GET", path: "/v1/hosts/ho-" + strings.Repeat("0", 20)}), 404, rest.NotFound)

	if h := as[rest.Host](t, w.do(call{method: "POST", path: at + "/drain"}), 200); !h.Draining {
		t.Errorf("%+v", h)
	}
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`}), 503, rest.Unavailable)
	as[struct{}](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/exec", body: `{"cmd":"cat"}`}), 200)
	as[rest.Host](t, w.do(call{method: "POST", path: at + "/undrain"}), 200)
	w.create(`{"template":"base"}`)
	e := fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base","vcpus":3}`}), 429, rest.ResourceExhausted)
	if !strings.Contains(e.Message, "3 vcpus (2 are free)") {
		t.Error(e.Message)
	}

	key := w.NewKey(w.Team, "read", "write")
	fails(t, w.do(call{method: "GET", path: "/v1/hosts", key: key}), 403, rest.PermissionDenied)
	fails(t, w.do(call{method: "POST", path: "/v1/hosts/tokens", key: key, body: `{}`}), 403, rest.PermissionDenied)
}

// TestAHostInUseStays names who uses it.
func TestAHostInUseStays(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	host := w.joined()
	sb, err := w.Store.Create(t.Context(), store.NewSandbox{ID: "cl-" + strings.Repeat("7", 20), Team: w.Team, Host: host, OnExpiry: "destroy"})
	if err != nil {
		t.Fatal(err)
	}
	if e := fails(t, w.do(call{method: "DELETE", path: "/v1/hosts/" + host}), 409, rest.FailedPrecondition); !strings.Contains(e.Message, sb.ID) {
		t.Error(e.Message)
	}
}
