package envd

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/guest/mmds"
	processpb "wrenn.dev/wrenn/proto/envd/process"
	"wrenn.dev/wrenn/proto/envd/process/processpbconnect"
)

func status(t *testing.T, method, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set(headerToken, token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 1000)
	n, _ := resp.Body.Read(b)
	return resp.StatusCode, string(b[:n])
}

// TestOnlyHealthIsOpen visits every path with no token, wrong ones and the right one.
func TestOnlyHealthIsOpen(t *testing.T) {
	url := serve(t, identity())
	var paths []string
	methods := processpb.File_process_process_proto.Services().Get(0).Methods()
	for i := range methods.Len() {
		paths = append(paths, "/process.Process/"+string(methods.Get(i).Name()))
	}
	if len(paths) != 8 {
		t.Fatalf("the service has %d methods", len(paths))
	}
	paths = append(paths, "/", "/quiesce", "/wake/", "/files", "/init", "/metrics", "/process.Process/", "/process.Process/NoSuch", "/healthz", "/health/")
	for _, path := range paths {
		for _, wrong := range []string{"", "wrong", token[1:], token + "0", strings.ToUpper(token), " " + token[:31]} {
			if code, body := status(t, http.MethodPost, url+path, wrong); code != http.StatusUnauthorized {
				t.Errorf("%s with %q: got %d %s", path, wrong, code, body)
			}
		}
		if code, body := status(t, http.MethodPost, url+path, token); code == http.StatusUnauthorized {
			t.Errorf("%s with the token: got %d %s", path, code, body)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		if code, _ := status(t, method, url+"/health", ""); code != http.StatusNoContent {
			t.Errorf("%s /health: got %d", method, code)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodOptions} {
		if code, _ := status(t, method, url+"/health", ""); code != http.StatusUnauthorized {
			t.Errorf("%s /health: got %d", method, code)
		}
	}
}

// TestClosedUntilKnown shows that without an identity nothing is let through, an empty token least of all.
func TestClosedUntilKnown(t *testing.T) {
	for name, source := range map[string]Source{"not known": unknown{}, "empty": known{SandboxID: "cl-1"}} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, source)
			for _, token := range []string{"", "x", token} {
				if code, body := status(t, http.MethodPost, url+"/process.Process/List", token); code != http.StatusServiceUnavailable ||
					!strings.Contains(body, `"code":"unavailable"`) {
					t.Errorf("%q: got %d %s", token, code, body)
				}
				if code, body := status(t, http.MethodGet, url+"/metrics", token); code != http.StatusServiceUnavailable {
					t.Errorf("plain, %q: got %d %s", token, code, body)
				}
			}
			if code, _ := status(t, http.MethodGet, url+"/health", ""); code != http.StatusNoContent {
				t.Errorf("health: got %d", code)
			}
		})
	}
}

// TestEnvironment shows what a process is told of its sandbox, and that the token is nowhere in what it can read.
func TestEnvironment(t *testing.T) {
	url := serve(t, identity())
	got := run(t, url, `{"process":{"cmd":"sh","args":["-c","[ \"$WRENN_SANDBOX_ID $WRENN_TEMPLATE_ID $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID\" = \"cl-1 base true cl-1 base\" ] && ! env | grep -i -e token -e `+token+`"]}}`, nil)
	if len(got) != 3 || !strings.Contains(got[1], "exit status 0") {
		t.Errorf("got %q", got)
	}
	if got := run(t, url, `{"process":{"cmd":"sh","args":["-c","[ $E2B_SANDBOX = mine ]"],"envs":{"E2B_SANDBOX":"mine"}}}`, nil); !strings.Contains(got[1], "exit status 0") {
		t.Errorf("a caller's variable: got %q", got)
	}
}

// TestProtocols speaks Connect, gRPC and gRPC-Web, over HTTP/1.1 and HTTP/2 without TLS.
func TestProtocols(t *testing.T) {
	url := serve(t, identity())
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	h1 := &http.Transport{}
	for name, c := range map[string]struct {
		transport *http.Transport
		options   []connect.ClientOption
	}{
		"connect, proto, http/1.1": {h1, nil},
		"connect, json, http/2":    {h2, []connect.ClientOption{connect.WithProtoJSON()}},
		"grpc, http/2":             {h2, []connect.ClientOption{connect.WithGRPC()}},
		"grpc-web, http/1.1":       {h1, []connect.ClientOption{connect.WithGRPCWeb()}},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.transport.CloseIdleConnections()
			client := processpbconnect.NewProcessClient(&http.Client{Transport: c.transport}, url, c.options...)
			req := connect.NewRequest(&processpb.StartRequest{Process: &processpb.ProcessConfig{Cmd: "echo", Args: []string{"hi"}}})
			if _, err := client.List(t.Context(), connect.NewRequest(&processpb.ListRequest{})); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("without token: got %v", err)
			}
			req.Header().Set(headerToken, token)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			stream, err := client.Start(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			var out string
			var end *processpb.ProcessEvent_EndEvent
			for stream.Receive() {
				out += string(stream.Msg().GetEvent().GetData().GetStdout())
				end = stream.Msg().GetEvent().GetEnd()
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			if out != "hi\n" || !end.GetExited() || end.GetStatus() != "exit status 0" {
				t.Errorf("got %q, %v", out, end)
			}
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMMDS shows that envd waits for a token that comes late.
func TestMMDS(t *testing.T) {
	var gets atomic.Int32
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			_, _ = w.Write([]byte("session"))
			return
		}
		if gets.Add(1) < 3 {
			_, _ = w.Write([]byte(`{"WRENN_SANDBOX_ID":"cl-9"}`))
			return
		}
		_, _ = w.Write([]byte(`{"WRENN_SANDBOX_ID":"cl-9","WRENN_TEMPLATE_ID":"x","WRENN_ENVD_TOKEN":"` + token + `"}`))
	}))
	defer service.Close()
	url := serve(t, FromMMDS(&mmds.Client{BaseURL: service.URL}))
	if code, body := status(t, http.MethodPost, url+"/process.Process/List", token); code != http.StatusOK || gets.Load() != 3 {
		t.Errorf("got %d %s after %d", code, body, gets.Load())
	}
}
