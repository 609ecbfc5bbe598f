package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// agent is the address of an agent on a host in memory.
func agent(t *testing.T) string {
	t.Helper()
	h := sandboxtest.NewHost(t)
	ctx, stop := context.WithCancel(context.Background())
	a, err := hostagent.Start(ctx, hostagent.Config{Manager: h.Manager(t), StateDir: h.StateDir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := rpc.Unix(socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(ctx, rpc.Handler(a), time.Second, l) }()
	t.Cleanup(func() {
		stop()
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(<-served, a.Close(closing)); err != nil {
			t.Error(err)
		}
	})
	return "unix://" + socket
}

// serve runs a server until the test or stop ends it.
func serve(t *testing.T, url, agent string) (s *Server, address string, stop func() error) {
	t.Helper()
	s, err := Open(t.Context(), Config{DatabaseURL: url, Agent: agent, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return s, "http://" + l.Addr().String(), stop
}

func request(t *testing.T, method, url, key, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestTwoServers work on one database: what one does the other tells of, and a stream ends with its server.
func TestTwoServers(t *testing.T) {
	url, agent := postgrestest.Database(t), agent(t)
	one, first, stopOne := serve(t, url, agent)
	_, second, _ := serve(t, url, agent)
	key, err := one.FirstKey(t.Context())
	if err != nil || key == "" {
		t.Fatal(key, err)
	}
	if again, err := one.FirstKey(t.Context()); again != "" || err != nil {
		t.Errorf("a second first key: %q %v", again, err)
	}
	stream := request(t, "GET", first+"/v1/events", key, "")
	defer stream.Body.Close()
	told := bufio.NewReader(stream.Body)
	if line, err := told.ReadString('\n'); err != nil || !strings.HasPrefix(line, "id: ") {
		t.Fatalf("%q %v", line, err)
	}
	made := request(t, "POST", second+"/v1/sandboxes", key, `{"template":"base"}`)
	body, err := io.ReadAll(made.Body)
	if err != nil || made.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s %v", made.StatusCode, body, err)
	}
	made.Body.Close()
	for line := ""; !strings.Contains(line, `"running"`); {
		if line, err = told.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if err := stopOne(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, told); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the stream did not end with its server")
	}
	if resp := request(t, "GET", second+"/test", "", ""); resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the test page is answered with %d", resp.StatusCode)
	} else {
		resp.Body.Close()
	}
	if resp := request(t, "GET", second+"/v1/sandboxes", key, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the other one answers %d", resp.StatusCode)
	} else {
		resp.Body.Close()
	}
}

func TestWhatIsNoAgent(t *testing.T) {
	for _, address := range []string{"there", "unix://relative", "tcp://127.0.0.1:1"} {
		if _, err := Open(t.Context(), Config{DatabaseURL: "postgresql:///x", Agent: address}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestWebhooksStayPublic unless the operator says otherwise.
func TestWebhooksStayPublic(t *testing.T) {
	s, url, _ := serve(t, postgrestest.Database(t), agent(t))
	key, err := s.FirstKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"https://127.0.0.1/", "https://169.254.169.254/latest/meta-data", "http://93.184.216.34/"} {
		resp := request(t, "POST", url+"/v1/webhooks", key, `{"url":"`+to+`"}`)
		if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", to, resp.StatusCode)
		}
	}
}
