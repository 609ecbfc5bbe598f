//go:build hosttest

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// up is a `wrenn up` process and how its API is reached.
type up struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, log words
	url, key string
	config   string // the folder of what cli has stored
}

// words are what a process writes, as it does.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// startUp returns when the API answers that it is ready.
func startUp(t *testing.T, socket string) *up {
	t.Helper()
	u := &up{t: t, cmd: exec.Command(binary(t), "up", "--socket", socket, "--listen", "127.0.0.1:0")}
	u.cmd.Stdout, u.cmd.Stderr = &u.out, &u.log
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = u.cmd.Process.Signal(syscall.SIGTERM) // or it has ended
		_ = u.cmd.Wait()
		if t.Failed() {
			t.Logf("its log:\n%s", u.log.String())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		u.url = regexp.MustCompile(`http://127[0-9.:]+`).FindString(u.out.String())
		if u.url != "" {
			if resp, err := http.Get(u.url + "/readyz"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					u.key = regexp.MustCompile(`wrenn_[0-9a-f]{64}`).FindString(u.out.String())
					return u
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not ready: %s", u.out.String())
		}
	}
}

// ask is a request to the API that must be answered with the status.
func (u *up) ask(method, path, body string, status int) map[string]any {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.url+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		u.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, raw, err)
	}
	var answer map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			u.t.Fatal(err)
		}
	}
	return answer
}

// cli is the command line of a person who has the server's address and a key, and nothing else of this machine.
func (u *up) cli(stdin string, args ...string) result {
	u.t.Helper()
	cmd := command(u.t, []string{"XDG_CONFIG_HOME=" + u.config, "WRENN_AGENT_SOCKET=", "WRENN_STATE_DIR="}, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(u.t, cmd)
}

// throughTheServer does with the sandbox what a person does.
func (u *up) throughTheServer(id string) {
	u.t.Helper()
	u.config = u.t.TempDir()
	u.cli(u.key+"\n", "login", u.url).want(u.t, 0)
	if got := u.cli("typed", "exec", "-i", id, "--", "sh", "-c", "cat; hostname >&2; exit 3").want(u.t, 3); got.out != "typed" || strings.TrimSpace(got.errOut) != id {
		u.t.Errorf("%+v", got)
	}
	data := strings.Repeat("0123456789abcdef", 100_000)
	u.cli(data, "cp", "-", id+":in").want(u.t, 0)
	if got := u.cli("", "cp", id+":in", "-").want(u.t, 0); got.out != data {
		u.t.Errorf("%d bytes come back of %d", len(got.out), len(data))
	}
	if got := u.cli("", "ls", "--json").want(u.t, 0); !strings.Contains(got.out, id) || !strings.Contains(got.out, `"who":"e2e"`) {
		u.t.Error(got.out)
	}
	if got := u.cli("", "events", "--past", "--no-follow", id).want(u.t, 0); !strings.Contains(got.out, "paused") {
		u.t.Error(got.out)
	}
}

// TestUp is a sandbox's life over the REST API, on a database of the host's own PostgreSQL. In the midst of it everything is killed: started
// again, it stops the database that ran on and goes on where it was, with the same key. At the end its files, processes and a terminal are used.
func TestUp(t *testing.T) {
	nothingLeft(t)
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Clean(stateDir()) + "-postgres"); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(t.TempDir(), "agent.sock")
	u := startUp(t, socket)
	if page, err := http.Get(u.url + "/test"); err != nil || page.StatusCode != http.StatusOK || page.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the test page: %+v %v", page, err)
	} else {
		page.Body.Close()
	}
	id, _ := u.ask("POST", "/v1/sandboxes", `{"template":"base","metadata":{"who":"e2e"}}`, 201)["id"].(string)
	at := "/v1/sandboxes/" + id
	shell := func(script string) string {
		body, err := json.Marshal(map[string]any{"cmd": "sh", "args": []string{"-c", script}})
		if err != nil {
			t.Fatal(err)
		}
		got := u.ask("POST", at+"/exec", string(body), 200)
		text, _ := got["stdout"].(map[string]any)
		s, _ := text["data"].(string)
		return strings.TrimSpace(s)
	}
	if got := shell("echo kept >/dev/shm/word; hostname"); got != id {
		t.Errorf("its host name is %q", got)
	}
	key := u.key
	if err := u.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = u.cmd.Wait() // it was killed
	u = startUp(t, socket)
	if u.key != "" {
		t.Error("a key is told again")
	}
	u.key = key
	if state := u.ask("POST", at+"/pause", "", 200)["state"]; state != "paused" {
		t.Errorf("it is %v", state)
	}
	u.ask("POST", at+"/resume", "", 200)
	if got := shell("cat /dev/shm/word"); got != "kept" {
		t.Errorf("its memory has %q", got)
	}
	u.files(at)
	u.processes(at)
	u.terminal(at)
	u.throughTheServer(id)
	u.ask("DELETE", at, "", 204)
	if state := u.ask("GET", at, "", 200)["state"]; state != "stopped" {
		t.Errorf("it is %v", state)
	}
}
