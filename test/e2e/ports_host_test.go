//go:build hosttest

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// web sends requests to the ports of sandboxes, all of whose names lead to an API's address.
type web struct {
	u      *up
	client *http.Client
}

func (u *up) web() *web {
	t := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(u.url, "http://"))
	}}
	u.t.Cleanup(t.CloseIdleConnections)
	return &web{u, &http.Client{Transport: t}}
}

// get is a request to a URL, and how it is answered.
func (w *web) get(url, token string) (int, string) {
	w.u.t.Helper()
	ctx, cancel := context.WithTimeout(w.u.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		w.u.t.Fatal(err)
	}
	req.Header.Set("Wrenn-Access-Token", token)
	resp, err := w.client.Do(req)
	if err != nil {
		w.u.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.u.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// servers are three, in one process of the guest: HTTPServer itself would ask DNS for its name first.
const servers = `
import http.server, socket, socketserver, threading
class Six(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
for kind, address in ((socketserver.ThreadingTCPServer, ('127.0.0.1', 8000)), (Six, ('::1', 8001)), (socketserver.ThreadingTCPServer, ('0.0.0.0', 8002))):
    server = kind(address, http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever).start()
open('/tmp/ready', 'w').close()
`

// TestPorts of a real guest, by their URLs: one that listens for all and two that listen for the guest itself; closed ones, and envd's. A request
// to a paused one lets it go on where it was.
func TestPorts(t *testing.T) {
	nothingLeft(t)
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Clean(stateDir()) + "-postgres"); err != nil {
			t.Error(err)
		}
	})
	u := startUp(t, filepath.Join(t.TempDir(), "agent.sock"))
	w := u.web()
	id, _ := u.ask("POST", "/v1/sandboxes", `{"template":"base","auto_resume":true}`, 201)["id"].(string)
	at := "/v1/sandboxes/" + id
	body, err := json.Marshal(map[string]any{"cmd": "sh", "args": []string{"-c", `mkdir /tmp/w; cd /tmp/w; echo hello >index.html
setsid python3 -c "$0" >/dev/null 2>&1 </dev/null & until [ -e /tmp/ready ]; do sleep 0.1; done`, servers}})
	if err != nil {
		t.Fatal(err)
	}
	if code := u.ask("POST", at+"/exec", string(body), 200)["exit_code"]; code != 0.0 {
		t.Fatalf("the servers do not start: %v", code)
	}
	token, _ := u.ask("POST", at+"/access-tokens", "", 201)["token"].(string)
	url := func(port string) string {
		s, _ := u.ask("GET", at+"/ports/"+port, "", 200)["url"].(string)
		return s
	}
	for port, what := range map[string]string{"8000": "127.0.0.1", "8001": "::1", "8002": "all"} {
		if code, text := w.get(url(port), token); code != 200 || text != "hello" {
			t.Errorf("a server for %s: %d %s", what, code, text)
		}
	}
	if code, text := w.get(url("8000"), "wrong"); code != 403 {
		t.Errorf("without the token: %d %s", code, text)
	}
	if code, text := w.get(url("9"), token); code != 502 || !strings.Contains(text, "port is not open") {
		t.Errorf("a closed port: %d %s", code, text)
	}
	for _, path := range []string{"health", "ports/8000"} {
		if code, text := w.get(url("49983")+path, token); code != 404 || !strings.Contains(text, "the sandbox's own") {
			t.Errorf("envd's /%s: %d %s", path, code, text)
		}
	}
	u.ask("POST", at+"/pause", "", 200)
	if code, text := w.get(url("8000"), token); code != 200 || text != "hello" {
		t.Errorf("a paused one: %d %s", code, text)
	}
	u.ask("DELETE", at, "", 204)
	if code, text := w.get(url("8000"), token); code != 502 || !strings.Contains(text, "not found") {
		t.Errorf("one that is gone: %d %s", code, text)
	}
}
