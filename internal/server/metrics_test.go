package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
)

// scrape is what Prometheus is told of a server.
func scrape(t *testing.T, s *Server) string {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Metrics().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatal(rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func TestMetrics(t *testing.T) {
	s, url, _ := serve(t, postgrestest.Database(t), agent(t))
	key, err := s.FirstKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/sandboxes", `{"template":"base"}`}, {"POST", "/v1/sandboxes", `{"template":"none"}`}, {"GET", "/v1/sandboxes?limit=0", ""},
		{"GET", "/nowhere", ""},
	} {
		resp := request(t, c.method, url+c.path, key, c.body)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(scrape(t, s), `wrenn_server_lease_held{lease="webhooks"} 1`); {
		if time.Sleep(10 * time.Millisecond); time.Now().After(deadline) {
			t.Fatal("nobody has the lease")
		}
	}
	text := scrape(t, s)
	for _, line := range []string{
		`wrenn_server_requests_total{operation="createSandbox",status="201"} 1`, `wrenn_server_requests_total{operation="createSandbox",status="404"} 1`,
		`wrenn_server_requests_total{operation="listSandboxes",status="400"} 1`, `wrenn_server_requests_total{operation="none",status="404"} 1`,
		`wrenn_server_request_seconds_count{operation="createSandbox"} 2`,
		`wrenn_server_agent_calls_total{call="Create",outcome="ok"} 1`,
		`wrenn_server_operation_phase_seconds_count{operation="Create",phase="disk"} 1`,
		"wrenn_server_database_up 1", `wrenn_server_sandboxes{state="paused"} 0`, "wrenn_server_webhook_pending 0",
		"wrenn_server_database_connections_limit",
		"wrenn_server_database_waits_total", "wrenn_build_info{version=", "go_goroutines",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	if strings.Contains(text, key) || strings.Contains(text, "cl-") {
		t.Error("a key or a sandbox is among them")
	}
	if resp := request(t, "GET", url+"/metrics", key, ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("the API has them: %d", resp.StatusCode)
	} else {
		resp.Body.Close()
	}
}
