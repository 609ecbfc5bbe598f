package client_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/client"
)

// all are a list's items.
func all[T any](t *testing.T, list iter.Seq2[T, error]) (items []T) {
	t.Helper()
	for item, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	return items
}

func create(t *testing.T, c *client.Client, o client.CreateOptions) *client.Sandbox {
	t.Helper()
	if o.Template == "" && o.Snapshot == "" {
		o.Template = "base"
	}
	sb, err := c.Sandboxes.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

func TestSandboxes(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	sb := create(t, c, client.CreateOptions{VCPUs: 2, MemoryMiB: 512, NoInternet: true, Metadata: map[string]string{"owner": "ann"}, TTL: time.Hour, OnExpiry: client.PauseOnExpiry})
	if sb.State != client.Running || sb.Reason == "" || sb.VCPUs != 2 || sb.MemoryMiB != 512 || sb.Internet || sb.Metadata["owner"] != "ann" || sb.TTL != time.Hour ||
		sb.OnExpiry != client.PauseOnExpiry || sb.Template != "base" || sb.DiskBytes == 0 || time.Since(sb.CreatedAt) > time.Minute || sb.ChangedAt.IsZero() {
		t.Errorf("%+v", sb)
	}
	changed, err := sb.Update(ctx, client.UpdateOptions{Metadata: map[string]string{}, TTL: new(time.Duration(0))})
	if err != nil || len(changed.Metadata) > 0 || changed.TTL != 0 || changed.OnExpiry != client.DestroyOnExpiry || sb.TTL != time.Hour {
		t.Errorf("%+v, %v", changed, err)
	}
	if got, err := sb.Refresh(ctx); err != nil || got.TTL != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	once := client.WithIdempotencyKey(ctx, "one")
	first, err1 := c.Sandboxes.Create(once, client.CreateOptions{Template: "base", Metadata: map[string]string{"owner": "bob"}})
	again, err2 := c.Sandboxes.Create(once, client.CreateOptions{Template: "base", Metadata: map[string]string{"owner": "bob"}})
	if errors.Join(err1, err2) != nil || first.ID != again.ID {
		t.Errorf("%v and %v, %v %v", first, again, err1, err2)
	}
	clones, err := sb.Fork(ctx, 3)
	if err != nil || len(clones) != 3 || clones[0].Err != nil || clones[0].Sandbox.ID == clones[1].Sandbox.ID {
		t.Fatal(clones, err)
	}
	if list := all(t, c.Sandboxes.List(ctx, client.ListOptions{PageSize: 2})); len(list) != 5 {
		t.Errorf("%d sandboxes in pages of two, want 5", len(list))
	}
	for range c.Sandboxes.List(ctx, client.ListOptions{PageSize: 1}) {
		break // that is how a list is left
	}
	if list := all(t, c.Sandboxes.List(ctx, client.ListOptions{Metadata: map[string]string{"owner": "bob"}})); len(list) != 1 || list[0].ID != first.ID {
		t.Error(list)
	}
	if _, err := clones[0].Sandbox.Resume(ctx); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := errors.Join(sb.Destroy(ctx), sb.Destroy(ctx)); err != nil {
		t.Error(err)
	}
	ended := all(t, c.Sandboxes.List(ctx, client.ListOptions{States: []client.State{client.Stopped, client.Failed}}))
	if len(ended) != 1 || ended[0].ID != sb.ID || !ended[0].State.Ended() {
		t.Error(ended)
	}
	var states []client.State
	for _, e := range all(t, c.Events(ctx, client.EventOptions{Sandbox: sb.ID, After: client.FromOldest, NoFollow: true})) {
		states = append(states, e.State)
	}
	if !slices.Contains(states, client.Running) || states[len(states)-1] != client.Stopped {
		t.Error(states)
	}
}

func TestCommands(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	sb := create(t, c, client.CreateOptions{})
	odd := "\x00\xff\xfe odd"
	r, err := sb.Exec(ctx, client.Command{Cmd: "sh", Args: []string{"-c", `cat; echo "$A" >&2; exit 3`}, Env: map[string]string{"A": "one"}, Cwd: "/", Stdin: strings.NewReader(odd)})
	if err != nil || r.Code != 3 || r.Signal != 0 || string(r.Stdout) != odd || string(r.Stderr) != "one\n" || r.StdoutTruncated {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := sb.Exec(ctx, client.Command{Cmd: "sh", Args: []string{"-c", "kill -9 $$"}}); err != nil || r.Signal != syscall.SIGKILL {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := sb.Exec(ctx, client.Command{Cmd: "head", Args: []string{"-c", "2000000", "/dev/zero"}}); err != nil || len(r.Stdout) != 1<<20 || !r.StdoutTruncated {
		t.Errorf("%d bytes, %v", len(r.Stdout), err)
	}
	if _, err := sb.Exec(ctx, client.Command{Cmd: "sleep", Args: []string{"100"}, Timeout: time.Microsecond}); !errors.Is(err, client.ErrTimeout) {
		t.Error(err)
	}
	if _, err := sb.Exec(ctx, client.Command{Cmd: "cat", Stdin: forever{}}); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	var out, stderr bytes.Buffer
	p, err := sb.Start(ctx, client.Command{Cmd: "sh", Args: []string{"-c", "head -c 3000000 /dev/zero; cat >&2"}, Stdin: strings.NewReader(odd), Stdout: &out, Stderr: &stderr})
	if err != nil || p.PID == 0 {
		t.Fatal(p, err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 0 || out.Len() != 3000000 || stderr.String() != odd {
		t.Errorf("%+v, %d bytes and %q, %v", exit, out.Len(), stderr.String(), err)
	}
	if _, err := sb.Start(ctx, client.Command{Cmd: "/none"}); err == nil {
		t.Error("a command that is not there was started")
	}
	within, cancel := context.WithCancelCause(ctx)
	p, err = sb.Start(within, client.Command{Cmd: "sleep", Args: []string{"100"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel(errCut)
	if _, err := p.Wait(); !errors.Is(err, errCut) {
		t.Error(err)
	}
	p, err = sb.Start(ctx, client.Command{Cmd: "sleep", Args: []string{"100"}})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	<-p.Done()
	if _, err := p.Wait(); err == nil {
		t.Error("it was let go of, and is said to have ended")
	}
}

func TestSnapshotsTemplatesAndKeys(t *testing.T) {
	w := newWorld(t)
	c, ctx := newClient(t, w), t.Context()
	sb := create(t, c, client.CreateOptions{})
	made, err := sb.Snapshot(ctx, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Snapshot(ctx, "one"); !errors.Is(err, client.ErrAlreadyExists) {
		t.Error(err)
	}
	got, err := c.Snapshots.Get(ctx, "one")
	if err != nil || *got != *made || got.SandboxID != sb.ID || got.Template != "base" || got.CreatedAt.IsZero() {
		t.Errorf("%+v, %+v, %v", got, made, err)
	}
	from := create(t, c, client.CreateOptions{Snapshot: "one"})
	if err := c.Snapshots.Delete(ctx, "one"); !errors.Is(err, client.ErrFailedPrecondition) || !strings.Contains(err.Error(), from.ID) {
		t.Error(err)
	}
	if err := errors.Join(from.Destroy(ctx), c.Snapshots.Delete(ctx, "one")); err != nil {
		t.Error(err)
	}
	if list := all(t, c.Snapshots.List(ctx)); len(list) != 0 {
		t.Error(list)
	}
	templates, err := c.Templates.List(ctx)
	if err != nil || len(templates) == 0 || templates[0].Name != "base" || templates[0].VCPUs == 0 || templates[0].MemoryMiB == 0 || templates[0].ID == "" {
		t.Errorf("%+v, %v", templates, err)
	}
	ends := time.Now().Add(time.Hour).Truncate(time.Second)
	secret, key, err := c.Keys.Create(ctx, client.CreateKeyOptions{Name: "ci", Scopes: []client.Scope{client.ScopeRead}, ExpiresAt: ends})
	if err != nil || !strings.HasPrefix(secret, key.Prefix) || !key.ExpiresAt.Equal(ends) || !key.RevokedAt.IsZero() {
		t.Fatalf("%+v, %v", key, err)
	}
	reader, err := client.New(w.URL, client.WithAPIKey(secret))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"}); !errors.Is(err, client.ErrPermissionDenied) {
		t.Error(err)
	}
	if err := c.Keys.Revoke(ctx, key.ID); err != nil {
		t.Error(err)
	}
	if _, err := reader.Sandboxes.Get(ctx, sb.ID); !errors.Is(err, client.ErrUnauthenticated) {
		t.Error(err)
	}
	names := map[string]bool{}
	for _, k := range all(t, c.Keys.List(ctx)) {
		names[k.Name] = k.RevokedAt.IsZero()
	}
	if !maps.Equal(names, map[string]bool{"test": true, "ci": false}) {
		t.Error(names)
	}
}
