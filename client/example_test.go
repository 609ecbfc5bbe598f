package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"wrenn.dev/wrenn/client"
)

// connect is what a program does first. An example's server is one of its own.
func connect() (*client.Client, func()) {
	stop := serve()
	c, err := client.New(demo.url, client.WithAPIKey(demo.key))
	if err != nil {
		log.Fatal(err)
	}
	return c, func() { c.Close(); stop() }
}

// A sandbox is made, runs a command, and is removed.
func Example() {
	c, done := connect()
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base", TTL: 30 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer sb.Destroy(context.WithoutCancel(ctx))

	result, err := sb.Exec(ctx, client.Command{Cmd: "sh", Args: []string{"-c", "echo $((6 * 7))"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s%s\n", result.Stdout, result.Status)
	// Output:
	// 42
	// exit status 0
}

// Output is passed on as it comes.
func ExampleSandbox_Start() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	p, err := sb.Start(ctx, client.Command{Cmd: "sh", Args: []string{"-c", "echo one; echo two; exit 3"}, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		log.Fatal(err)
	}
	exit, err := p.Wait()
	fmt.Println(exit.Code, err)
	// Output:
	// one
	// two
	// 3 <nil>
}

// An error's kind is a value, and an Error says what to do.
func ExampleError() {
	c, done := connect()
	defer done()
	ctx := context.Background()

	_, err := c.Sandboxes.Get(ctx, "cl-0123456789abcdefghij")
	fmt.Println(errors.Is(err, client.ErrNotFound))

	_, err = c.Sandboxes.Create(ctx, client.CreateOptions{})
	var e *client.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Field)
		fmt.Println(e.Fix)
	}
	// Output:
	// true
	// invalid_argument template
	// a template such as base, or the name of a snapshot
}

// Any number of sandboxes start from where one was.
func ExampleSandbox_Snapshot() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base", Metadata: map[string]string{"for": "tests"}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := sb.Snapshot(ctx, "ready"); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if _, err := c.Sandboxes.Create(ctx, client.CreateOptions{Snapshot: "ready"}); err != nil {
			log.Fatal(err)
		}
	}
	for other, err := range c.Sandboxes.List(ctx, client.ListOptions{States: []client.State{client.Running}}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(other.State, other.SnapshotID != "")
	}
	// Output:
	// running true
	// running true
	// running false
}

// A sandbox that is paused takes disk space and nothing else.
func ExampleSandbox_Pause() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	if sb, err = sb.Pause(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sb.State)
	if sb, err = sb.Resume(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sb.State)
	// Output:
	// paused
	// running
}

// Events are followed until the loop is left. A connection that breaks is made anew, and none is missed.
func ExampleClient_Events() {
	c, done := connect()
	defer done()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	go sb.Destroy(ctx)
	for event, err := range c.Events(ctx, client.EventOptions{Sandbox: sb.ID, After: client.FromOldest}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.State)
		if event.State.Ended() {
			break
		}
	}
	// Output:
	// starting
	// running
	// stopping
	// stopped
}

// A key is told once.
func ExampleKeys_Create() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	secret, key, err := c.Keys.Create(ctx, client.CreateKeyOptions{Name: "ci", Scopes: []client.Scope{client.ScopeRead}, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(secret) > 40, key.Name, key.Scopes)
	if err := c.Keys.Revoke(ctx, key.ID); err != nil {
		log.Fatal(err)
	}
	// Output: true ci [read]
}

// Files of any size go in and out as streams.
func ExampleFiles() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	files := sb.Files()
	if _, err := files.Write(ctx, "project/hello.sh", strings.NewReader("echo hello\n"), client.Mode(0o755)); err != nil {
		log.Fatal(err)
	}
	list, err := files.List(ctx, "project", 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(list[0].Name, list[0].Mode, list[0].Size)
	content, err := files.Read(ctx, "project/hello.sh")
	if err != nil {
		log.Fatal(err)
	}
	defer content.Close()
	if _, err := io.Copy(os.Stdout, content); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello.sh -rwxr-xr-x 11
	// echo hello
}

// A command goes on by itself; whoever wants to follows it.
func ExampleSandbox_StartBackground() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	pid, err := sb.StartBackground(ctx, client.Background{Command: client.Command{Cmd: "cat"}, Input: true})
	if err != nil {
		log.Fatal(err)
	}
	p, err := sb.Follow(ctx, pid, os.Stdout, os.Stderr)
	if err != nil {
		log.Fatal(err)
	}
	if err := sb.WriteStdin(ctx, pid, []byte("one line\n"), true); err != nil {
		log.Fatal(err)
	}
	exit, err := p.Wait()
	fmt.Println(exit.Status, err)
	// Output:
	// one line
	// exit status 0 <nil>
}

// A terminal is read and written like any stream.
func ExampleSandbox_OpenTerminal() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"})
	if err != nil {
		log.Fatal(err)
	}
	term, err := sb.OpenTerminal(ctx, client.TerminalOptions{Cmd: "sh", Args: []string{"-c", "stty size"}, Size: client.TerminalSize{Cols: 120, Rows: 40}})
	if err != nil {
		log.Fatal(err)
	}
	defer term.Close()
	shown, err := io.ReadAll(term)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.TrimSpace(string(shown)))
	// Output: 40 120
}

// A server in a sandbox has a URL. Who has a token may see it.
func ExampleSandbox_Port() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base", AutoResume: true})
	if err != nil {
		log.Fatal(err)
	}
	port, err := sb.Port(ctx, 8000)
	if err != nil {
		log.Fatal(err)
	}
	token, err := sb.CreateAccessToken(ctx)
	if err != nil {
		log.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, port.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Wrenn-Access-Token", token)
	fmt.Println(strings.HasPrefix(req.URL.Host, "8000-"), port.Public)
	// Output: true false
}

// What a receiver does with a message: one that nobody else can have sent is believed.
func ExampleVerifyWebhook() {
	secret := "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err == nil {
			err = client.VerifyWebhook(secret, r.Header, body)
		}
		if err != nil {
			http.Error(w, "not for me", http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
	answer := httptest.NewRecorder()
	handler(answer, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}")))
	fmt.Println(answer.Code)
	// Output: 403
}

// A team may have so much at once.
func ExampleTeams_Create() {
	c, done := connect()
	defer done()
	ctx := context.Background()
	team, err := c.Teams.Create(ctx, "guests", client.Limits{Sandboxes: new(int64(10)), RequestsPerSecond: new(int32(20))})
	if err != nil {
		log.Fatal(err)
	}
	_, key, err := c.Teams.CreateKey(ctx, team.ID, client.CreateKeyOptions{Name: "first", Role: client.RoleAdmin})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*team.Limits.Sandboxes, team.Limits.VCPUs == nil, key.Role)
	// Output: 10 true admin
}
