//go:build hosttest

package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/postgres"
)

// database is a PostgreSQL of this machine's own programs.
func database(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wrenn-pg-") // a short name: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the server's user goes through it
		t.Fatal(err)
	}
	db, err := postgres.Start(t.Context(), postgres.Config{Dir: filepath.Join(dir, "pg")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return db.URL()
}

// launch starts a process of the binary that ends with the test.
func launch(t *testing.T, out, log *words, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	cmd.Stdout, cmd.Stderr = out, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // or it has ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the log of %v:\n%s", args, log.String())
		}
	})
	return cmd
}

// startServer runs a server that takes hosts, which are lost after the lease.
func startServer(t *testing.T, lease string) *up {
	t.Helper()
	u := &up{t: t}
	u.cmd = launch(t, &u.out, &u.log, "server", "--database-url", database(t), "--listen", "127.0.0.1:0", "--hosts-listen", "127.0.0.1:0", "--host-lease", lease)
	for deadline := time.Now().Add(patience); u.key == ""; time.Sleep(50 * time.Millisecond) {
		u.url = regexp.MustCompile(`http://127[0-9.:]+`).FindString(u.out.String())
		u.key = regexp.MustCompile(`wrenn_[0-9a-f]{64}`).FindString(u.out.String())
		if time.Now().After(deadline) {
			t.Fatalf("it does not start: %s", u.out.String())
		}
	}
	return u
}

// becomes waits until what is at a path is in a state, and returns it.
func (u *up) becomes(path, state string) map[string]any {
	u.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		is := u.ask("GET", path, "", http.StatusOK)
		if is["state"] == state {
			return is
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("%s is %v, want %s", path, is, state)
		}
	}
}

// onHosts are how many sandboxes each host has.
func (u *up) onHosts() map[string]float64 {
	u.t.Helper()
	on := map[string]float64{}
	for _, h := range u.ask("GET", "/v1/hosts", "", http.StatusOK)["hosts"].([]any) {
		host := h.(map[string]any)
		on[host["id"].(string)] = host["reserved"].(map[string]any)["sandboxes"].(float64)
	}
	return on
}

// TestHosts has two agents join one server, each with a state folder of its own. One drains; one is killed for longer than its lease while its
// sandbox runs on: lost, and there again with all that was in its memory when the agent is.
func TestHosts(t *testing.T) {
	nothingLeft(t)
	second := filepath.Clean(stateDir()) + "-second"
	t.Cleanup(func() {
		_ = os.Remove(filepath.Join(stateDir(), "agent", "member.json")) // the next test's agent is nobody's host
		if err := os.RemoveAll(second); err != nil {
			t.Error(err)
		}
	})
	u := startServer(t, "10s")
	start := map[string]func(token string) *exec.Cmd{}
	running := map[string]*exec.Cmd{}
	for n, args := range [][]string{{"--state-dir", stateDir()}, {"--state-dir", second, "--uid-base", "1900008192"}} {
		run := func(token string) *exec.Cmd {
			full := append(args, "agent", "--socket", filepath.Join(t.TempDir(), "agent.sock"), "--warm-slots", "0", "--listen", "127.0.0.1:0")
			if token != "" {
				full = append(full, "--join", token)
			}
			return launch(t, new(words), new(words), full...)
		}
		before := u.onHosts()
		cmd := run(u.ask("POST", "/v1/hosts/tokens", `{"ttl_seconds":600}`, http.StatusCreated)["token"].(string))
		host := ""
		for deadline := time.Now().Add(patience); host == ""; time.Sleep(100 * time.Millisecond) {
			for id := range u.onHosts() {
				if _, known := before[id]; !known {
					host = id
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("agent %d does not join", n)
			}
		}
		start[host], running[host] = run, cmd
		u.becomes("/v1/hosts/"+host, "up")
	}

	const spec = `{"template":"base","memory_mib":384}` // a size of its own is booted: neither agent makes a build first
	sandbox := "/v1/sandboxes/" + u.ask("POST", "/v1/sandboxes", spec, http.StatusCreated)["id"].(string)
	in := func(sandbox, script string) string {
		body, err := json.Marshal(map[string]any{"cmd": "sh", "args": []string{"-c", script}})
		if err != nil {
			t.Fatal(err)
		}
		text, _ := u.ask("POST", sandbox+"/exec", string(body), http.StatusOK)["stdout"].(map[string]any)
		s, _ := text["data"].(string)
		return strings.TrimSpace(s)
	}
	in(sandbox, "echo kept >/dev/shm/word; sleep 100000 >/dev/null 2>&1 & echo $! >/dev/shm/pid")
	host := ""
	for id, n := range u.onHosts() {
		if n == 1 {
			host = id
		}
	}
	u.ask("POST", "/v1/hosts/"+host+"/drain", "", http.StatusOK)
	if err := running[host].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = running[host].Wait()
	// As far as the server knows the one that drains is there: its lease ends while the other one starts this.
	other := "/v1/sandboxes/" + u.ask("POST", "/v1/sandboxes", spec, http.StatusCreated)["id"].(string)
	for id, n := range u.onHosts() {
		if n != 1 {
			t.Errorf("host %s has %v sandboxes, and the one that has one drains", id, n)
		}
	}
	u.becomes("/v1/hosts/"+host, "lost")
	if is := u.becomes(sandbox, "lost"); !strings.Contains(is["reason"].(string), host) {
		t.Errorf("the reason is %v", is["reason"])
	}
	start[host]("")
	u.becomes("/v1/hosts/"+host, "up")
	u.becomes(sandbox, "running")
	if got := in(sandbox, "kill -0 $(cat /dev/shm/pid) && cat /dev/shm/word"); got != "kept" {
		t.Errorf("its process is gone, or its memory has %q", got)
	}
	if got := in(other, "echo here"); got != "here" { // the agent that came back has left the other one's alone
		t.Errorf("the other sandbox says %q", got)
	}
	u.ask("DELETE", other, "", http.StatusNoContent)
	u.ask("DELETE", sandbox, "", http.StatusNoContent)
}
