package api_test

import (
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/rest"
)

// TestPorts is what the API tells of a sandbox's ports; internal/server/proxy has who gets there.
func TestPorts(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base","public":true,"auto_resume":true}`)
	if !sb.Public || !sb.AutoResume {
		t.Errorf("%+v", sb)
	}
	at := "/v1/sandboxes/" + sb.ID
	port := as[rest.Port](t, w.do(call{method: "GET", path: at + "/ports/8000"}), 200)
	if want := "http://8000-" + strings.TrimPrefix(sb.ID, "cl-") + ".localhost:"; !strings.HasPrefix(port.URL, want) || !port.Public {
		t.Errorf("%+v", port)
	}
	made := as[rest.AccessToken](t, w.do(call{method: "POST", path: at + "/access-tokens"}), 201)
	if again := as[rest.AccessToken](t, w.do(call{method: "POST", path: at + "/access-tokens"}), 201); made.Token == again.Token {
		t.Error("two tokens are one")
	}
	fails(t, w.do(call{method: "POST", path: at + "/access-tokens", header: map[string]string{"Idempotency-Key": "k"}}), 400, rest.InvalidArgument)
	if a := w.do(call{method: "DELETE", path: at + "/access-tokens"}); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	sb = as[rest.Sandbox](t, w.do(call{method: "PATCH", path: at, body: `{"public":false}`}), 200)
	if sb.Public || !sb.AutoResume {
		t.Errorf("%+v", sb)
	}
	_, other := w.NewTeam("theirs")
	reader := w.NewKey(w.Team, "read")
	for _, c := range []call{{method: "GET", path: at + "/ports/1", key: other}, {method: "POST", path: at + "/access-tokens", key: other},
		{method: "DELETE", path: at + "/access-tokens", key: other}, {method: "PATCH", path: at, body: `{"public":true}`, key: other}} {
		fails(t, w.do(c), 404, rest.NotFound)
	}
	fails(t, w.do(call{method: "POST", path: at + "/access-tokens", key: reader}), 403, rest.PermissionDenied)
}
