package endings_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/examples/extension/endings"
	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/servertest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// ask is a request to a server that must be answered with the status.
func ask(t *testing.T, w *servertest.World, method, path, key, body string, status int) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.HTTP.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || resp.Header.Get("X-Request-Id") == "" {
		t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, raw, err)
	}
	var answer map[string]any
	if len(raw) > 0 && json.Unmarshal(raw, &answer) != nil {
		t.Fatalf("%s %s answers %s", method, path, raw)
	}
	return answer
}

// TestEndings is the extension in a whole server: a sandbox that ends is counted for its team and for no other.
func TestEndings(t *testing.T) {
	w := servertest.New(t, servertest.Config{Extensions: []extension.Extension{endings.Extension{}}})
	_, other := w.NewTeam("other")
	ask(t, w, "GET", "/ext/endings/mine", "", "", 401)
	ask(t, w, "GET", "/ext/endings/mine", w.NewKey(w.Team, "write"), "", 403)
	ask(t, w, "POST", "/ext/endings/mine", w.Key, "", 405)
	ask(t, w, "GET", "/ext/endings/yours", w.Key, "", 404)
	for count, deadline := 0.0, time.Now().Add(30*time.Second); count == 0; count = ask(t, w, "GET", "/ext/endings/mine", w.Key, "", 200)["stopped"].(float64) {
		if time.Now().After(deadline) {
			t.Fatal("an ending is not counted")
		}
		// The extension hears of what happens from its first start on: that may be after the first sandboxes.
		id := ask(t, w, "POST", "/v1/sandboxes", w.Key, `{"template":"base"}`, 201)["id"].(string)
		ask(t, w, "DELETE", "/v1/sandboxes/"+id, w.Key, "", 204)
	}
	if n := ask(t, w, "GET", "/ext/endings/mine", other, "", 200)["stopped"]; n != 0.0 {
		t.Errorf("another team sees %v endings", n)
	}
}
