package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
)

// printed are what a command prints, as it does.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (w *printed) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *printed) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// shortDir is a folder that PostgreSQL's user can enter, with a name that leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "wrenn-up-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// box is one machine, whose sandboxes are in memory; all else of `wrenn up` is real.
type box struct {
	*sandboxtest.Host
	t       *testing.T
	dir     string
	log     *slog.Logger
	keyFile string
}

// run runs all of it as `wrenn up` does, while fn does, and returns what it printed.
func (b *box) run(fn func(url, out string)) string {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	defer stop()
	state := filepath.Join(b.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil { // as whatever came before has left it
		b.t.Fatal(err)
	}
	db, err := startDatabase(ctx, b.log, databaseDir(state))
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := hostagent.Start(ctx, hostagent.Config{Manager: b.Manager(b.t), StateDir: b.StateDir, Log: b.log})
	if err != nil {
		b.t.Fatal(err)
	}
	f := &upFlags{serverFlags: serverFlags{listen: "127.0.0.1:0", domain: defaultDomain, keyFile: b.keyFile}, agentFlags: agentFlags{socket: filepath.Join(b.dir, "agent.sock")}}
	out, ended := &printed{}, make(chan error, 1)
	go func() { ended <- f.together(ctx, streams{out: out, err: io.Discard}, a, b.log, db.URL(), db.Done()) }()
	address := regexp.MustCompile(`http://[0-9.:]+`)
	for address.FindString(out.String()) == "" {
		select {
		case err := <-ended:
			b.t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	url := address.FindString(out.String())
	b.ready(url)
	fn(url, out.String())
	stop()
	closing, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(<-ended, a.Close(closing), db.Close(closing)); err != nil {
		b.t.Error(err)
	}
	return out.String()
}

// ready waits until the API says that it is.
func (b *box) ready(url string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(url + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	b.t.Fatal("it does not get ready")
}

func ask(t *testing.T, method, url, key, body string, status int) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s %v", method, url, resp.StatusCode, raw, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestUpGoesOnWhereItWas(t *testing.T) {
	b := &box{Host: sandboxtest.NewHost(t), t: t, dir: shortDir(t), log: slog.New(slog.DiscardHandler)}
	var key, id string
	b.run(func(url, out string) {
		key = regexp.MustCompile(`wrenn_[0-9a-f]{64}`).FindString(out)
		id, _ = ask(t, "POST", url+"/v1/sandboxes", key, `{"template":"base"}`, 201)["id"].(string)
		port, _ := ask(t, "GET", url+"/v1/sandboxes/"+id+"/ports/8000", key, "", 200)["url"].(string)
		req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = strings.Trim(strings.TrimPrefix(port, "http://"), "/")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusForbidden || !strings.HasSuffix(req.Host, strings.TrimPrefix(url, "http://127.0.0.1")) {
			t.Errorf("%s: %d %s %v", port, resp.StatusCode, body, err)
		}
	})
	out := b.run(func(url, _ string) {
		if state := ask(t, "GET", url+"/v1/sandboxes/"+id, key, "", 200)["state"]; state != "running" {
			t.Errorf("it is %v", state)
		}
	})
	if strings.Contains(out, "wrenn_") {
		t.Errorf("a key is told again: %s", out)
	}
}

// TestFirstKeyInAFile: what a service prints is in the journal for good.
func TestFirstKeyInAFile(t *testing.T) {
	b := &box{Host: sandboxtest.NewHost(t), t: t, dir: shortDir(t), log: slog.New(slog.DiscardHandler)}
	b.keyFile = filepath.Join(b.dir, "key")
	var key string
	out := b.run(func(url, _ string) {
		raw, err := os.ReadFile(b.keyFile)
		if err != nil {
			t.Fatal(err)
		}
		key = strings.TrimSpace(string(raw))
		ask(t, "GET", url+"/v1/sandboxes", key, "", 200)
	})
	if strings.Contains(out, "wrenn_") || !strings.Contains(out, b.keyFile) {
		t.Errorf("it prints %s", out)
	}
	b.run(func(string, string) {})
	info, err := os.Stat(b.keyFile)
	again, readErr := os.ReadFile(b.keyFile)
	if err != nil || readErr != nil || info.Mode() != 0o600 || strings.TrimSpace(string(again)) != key {
		t.Errorf("the file is %v with %q, %v, %v", info.Mode(), again, err, readErr)
	}
	if left, err := filepath.Glob(filepath.Join(b.dir, ".key*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestServerFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"server"}, "--database-url"},
		{[]string{"server", "--database-url", "http://x", "--listen", "127.0.0.1:0"}, "--database-url"},
		{[]string{"server", "--database-url", "postgresql:///x", "--listen", "nowhere"}, "--listen"},
		{[]string{"server", "--database-url", "postgresql:///x", "--listen", "127.0.0.1:0", "--agent", "there"}, "--agent"},
		{[]string{"server", "--database-url", "postgresql:///x", "--listen", "127.0.0.1:0", "--domain", "127.0.0.1"}, "--domain"},
		{[]string{"server", "--database-url", "postgresql:///x", "--log-format", "loud"}, "--log-format"},
		{[]string{"server", "more"}, "arguments"},
		{[]string{"up", "--max-memory", "x"}, "--max-memory"},
	} {
		t.Setenv("WRENN_DATABASE_URL", "")
		var stderr bytes.Buffer
		if code := execute(t.Context(), c.args, streams{in: strings.NewReader(""), out: io.Discard, err: &stderr}); code != exitUsage ||
			!strings.Contains(stderr.String(), c.says) {
			t.Errorf("%v: %d %s", c.args, code, stderr.String())
		}
	}
	var stderr bytes.Buffer
	args := []string{"server", "--database-url", "postgresql://wrenn@127.0.0.1:1/x?connect_timeout=1", "--listen", "127.0.0.1:0"}
	if code := execute(t.Context(), args, streams{in: strings.NewReader(""), out: io.Discard, err: &stderr}); code != exitFailed ||
		!strings.Contains(stderr.String(), errs.ErrUnavailable.Error()) {
		t.Errorf("no database: %d %s", code, stderr.String())
	}
}
