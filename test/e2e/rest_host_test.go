//go:build hosttest

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// restBytes is the size of the file that is stored and read over the REST API.
const restBytes = 8 << 20

// send is a request to the API, whose answer the caller closes.
func (u *up) send(method, path string, body io.Reader, header ...string) *http.Response {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.url+path, body)
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	return resp
}

// files stores a file in a sandbox and reads a part of it, and has the guest say what it has.
func (u *up) files(at string) {
	u.t.Helper()
	content := make([]byte, restBytes)
	_, _ = rand.Read(content)
	resp := u.send("PUT", at+"/files/content?path=rest/large&mode=600", bytes.NewReader(content))
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		u.t.Fatal(resp.Status)
	}
	resp = u.send("GET", at+"/files/content?path=rest/large", nil, "Range", "bytes=4194300-5242899")
	defer resp.Body.Close()
	part, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(part, content[4194300:5242900]) {
		u.t.Errorf("a range: %s, %d bytes, %v", resp.Status, len(part), err)
	}
	body, err := json.Marshal(map[string]any{"cmd": "sh", "args": []string{"-c", "sha256sum rest/large; stat -c %a rest/large"}})
	if err != nil {
		u.t.Fatal(err)
	}
	said := fmt.Sprint(u.ask("POST", at+"/exec", string(body), 200)["stdout"])
	if !strings.Contains(said, digest(content)) || !strings.Contains(said, "600") {
		u.t.Errorf("the guest has %s", said)
	}
	list := u.ask("GET", at+"/files/list?path=rest", "", 200)["files"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["size"] != float64(restBytes) {
		u.t.Errorf("%v", list)
	}
	u.ask("POST", at+"/files/remove", `{"path":"rest"}`, 204)
}

// processes starts a command that goes on by itself and joins it.
func (u *up) processes(at string) {
	u.t.Helper()
	body, err := json.Marshal(map[string]any{"cmd": "sh", "args": []string{"-c", "read -r l; echo got $l; exit 4"}, "stdin": true})
	if err != nil {
		u.t.Fatal(err)
	}
	process := fmt.Sprintf("%s/processes/%.0f", at, u.ask("POST", at+"/processes", string(body), 201)["pid"])
	resp := u.send("GET", process+"/output", nil)
	defer resp.Body.Close()
	out := bufio.NewScanner(resp.Body)
	next := func() string {
		u.t.Helper()
		if !out.Scan() {
			u.t.Fatalf("%s: the stream ended: %v", resp.Status, out.Err())
		}
		return out.Text()
	}
	if first := next(); !strings.Contains(first, `"started"`) {
		u.t.Errorf("%s comes first", first)
	}
	u.ask("POST", process+"/stdin", `{"input":{"encoding":"utf-8","data":"it\n"}}`, 204)
	if said, end := next(), next(); !strings.Contains(said, "got it") || !strings.Contains(end, `"exit_code":4`) {
		u.t.Errorf("%s, %s", said, end)
	}
}

// terminal uses one over a WebSocket, with the key as a browser shows it.
func (u *up) terminal(at string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, u.url+at+"/pty", &websocket.DialOptions{Subprotocols: []string{"wrenn.v1", "key." + u.key}})
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	shown := ""
	// until reads until something is shown or told.
	until := func(text string) {
		u.t.Helper()
		for !strings.Contains(shown, text) {
			_, data, err := conn.Read(ctx)
			if err != nil {
				u.t.Fatalf("after %q: %v", shown, err)
			}
			shown += string(data)
		}
	}
	write := func(kind websocket.MessageType, text string) {
		u.t.Helper()
		if err := conn.Write(ctx, kind, []byte(text)); err != nil {
			u.t.Fatal(err)
		}
	}
	until(`"started"`)
	write(websocket.MessageText, `{"type":"resize","cols":132,"rows":43}`)
	write(websocket.MessageBinary, "stty size; exit 6\n")
	until("43 132")
	until(`"exit_code":6`)
}
