package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/servertest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// world is a server, and a client to which every name leads there.
type world struct {
	*servertest.World
	t      *testing.T
	client *http.Client
	h2     *http.Client // over HTTP/2
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{World: servertest.New(t, servertest.Config{}), t: t}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.HTTP.Listener.Addr().String())
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	one, two := &http.Transport{DialContext: dial, DisableCompression: true}, &http.Transport{DialContext: dial, Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	w.client, w.h2 = &http.Client{Transport: one, CheckRedirect: stay}, &http.Client{Transport: two, CheckRedirect: stay}
	t.Cleanup(func() { one.CloseIdleConnections(); two.CloseIdleConnections() })
	return w
}

// open has a handler of the test's serve a port of every guest, over HTTP/1.1 and HTTP/2.
func (w *world) open(port int, h http.HandlerFunc) {
	w.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	w.Ports.Open(port, s.Listener.Addr().String())
}

// api is a request to the API, which must be answered with the status.
func (w *world) api(method, path, body string, status int) map[string]any {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.Key)
	req.Header.Set("Content-Type", "application/json")
	_, raw := w.do(w.client, req, status)
	var answer map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal([]byte(raw), &answer); err != nil {
			w.t.Fatal(err)
		}
	}
	return answer
}

// create makes a sandbox, with more fields.
func (w *world) create(fields string) string {
	w.t.Helper()
	id, _ := w.api("POST", "/v1/sandboxes", `{"template":"base"`+fields+`}`, 201)["id"].(string)
	return id
}

func (w *world) token(id string) string {
	w.t.Helper()
	token, _ := w.api("POST", "/v1/sandboxes/"+id+"/access-tokens", "", 201)["token"].(string)
	return token
}

// request is one to a port of a sandbox.
func (w *world) request(method, id string, port int, path string, body io.Reader, headers ...string) *http.Request {
	w.t.Helper()
	url := "http://" + w.Domain.Host(portname.Target{Sandbox: id, Port: port}) + path
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return req
}

// do sends a request, which must be answered with the status.
func (w *world) do(c *http.Client, req *http.Request, status int) (*http.Response, string) {
	w.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != status {
		w.t.Fatalf("%s %s: %d, want %d: %s", req.Method, req.URL, resp.StatusCode, status, body)
	}
	return resp, string(body)
}

// get is a GET of a port, which must be answered with the status.
func (w *world) get(id string, port int, status int, headers ...string) (*http.Response, string) {
	w.t.Helper()
	return w.do(w.client, w.request("GET", id, port, "/", nil, headers...), status)
}

// raw sends bytes as they are and returns all that comes back.
func (w *world) raw(text string) string {
	w.t.Helper()
	c, err := net.Dial("tcp", w.HTTP.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	all, err := io.ReadAll(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(all)
}
