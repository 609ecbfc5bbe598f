package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/webhook"
)

func TestTeamsAndAudit(t *testing.T) {
	w := newWorld(t)
	c, ctx := newClient(t, w), t.Context()
	sb := create(t, c, client.CreateOptions{})
	own, err := c.Teams.Own(ctx)
	if err != nil || own.ID != w.Team || own.Used == nil || own.Used.Sandboxes != 1 || own.Limits.Sandboxes != nil {
		t.Errorf("%+v, %v", own, err)
	}
	made, err := c.Teams.Create(ctx, "guests", client.Limits{Sandboxes: new(int64(1)), RequestsPerSecond: new(int32(1000))})
	if err != nil || made.Name != "guests" || *made.Limits.Sandboxes != 1 || *made.Limits.RequestsPerSecond != 1000 || made.Limits.VCPUs != nil || made.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", made, err)
	}
	if list := all(t, c.Teams.List(ctx)); len(list) != 2 {
		t.Error(list)
	}
	secret, key, err := c.Teams.CreateKey(ctx, made.ID, client.CreateKeyOptions{Name: "g", Role: client.RoleDeveloper, Limits: client.Limits{Snapshots: new(int64(0))}})
	if err != nil || key.Role != client.RoleDeveloper || *key.Limits.Snapshots != 0 || key.Limits.Sandboxes != nil {
		t.Fatalf("%+v, %v", key, err)
	}
	guest := newClient(t, w, client.WithAPIKey(secret), client.WithRetries(0))
	theirs := create(t, guest, client.CreateOptions{})
	if _, err := guest.Sandboxes.Create(ctx, client.CreateOptions{Template: "base"}); !errors.Is(err, client.ErrResourceExhausted) {
		t.Error(err)
	}
	if _, err := theirs.Snapshot(ctx, "no"); !errors.Is(err, client.ErrResourceExhausted) {
		t.Error(err)
	}
	if _, err := guest.Teams.Get(ctx, made.ID); !errors.Is(err, client.ErrPermissionDenied) {
		t.Error(err)
	}
	if changed, err := c.Teams.Update(ctx, made.ID, client.UpdateTeamOptions{Name: "others", Limits: &client.Limits{}}); err != nil || changed.Name != "others" || changed.Limits.Sandboxes != nil {
		t.Errorf("%+v, %v", changed, err)
	}
	if got, err := c.Teams.Get(ctx, made.ID); err != nil || got.Used == nil || got.Used.Sandboxes != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if keys := all(t, c.Teams.ListKeys(ctx, made.ID)); len(keys) != 1 || keys[0].ID != key.ID {
		t.Error(keys)
	}
	if err := c.Teams.Delete(ctx, made.ID); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := errors.Join(theirs.Destroy(ctx), c.Teams.RevokeKey(ctx, made.ID, key.ID), c.Teams.Delete(ctx, made.ID), sb.Destroy(ctx)); err != nil {
		t.Error(err)
	}
	if _, err := c.Teams.Get(ctx, ".."); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	var operations []string
	for _, r := range all(t, c.Audit(ctx, client.AuditOptions{Team: w.Team})) {
		if r.TeamID != w.Team || r.At.IsZero() || r.KeyID == "" || r.Status == 0 || r.RequestID == "" {
			t.Errorf("%+v", r)
		}
		operations = append(operations, r.Operation+" "+r.Resource)
	}
	if text := strings.Join(operations, "\n"); !strings.Contains(text, "createSandbox sandboxes/"+sb.ID) || !strings.HasPrefix(text, "destroySandbox") {
		t.Error(text)
	}
}

func TestHosts(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	list := all(t, c.Hosts.List(ctx))
	if len(list) != 1 || list[0].State != client.HostUp || list[0].Draining || len(list[0].Templates) == 0 {
		t.Fatalf("%+v", list)
	}
	id := list[0].ID
	if h, err := c.Hosts.Drain(ctx, id); err != nil || !h.Draining {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := c.Hosts.Undrain(ctx, id); err != nil || h.Draining {
		t.Errorf("%+v, %v", h, err)
	}
	create(t, c, client.CreateOptions{})
	if h, err := c.Hosts.Get(ctx, id); err != nil || h.Reserved.Sandboxes != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := c.Hosts.Remove(ctx, id); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
	token, err := c.Hosts.CreateToken(ctx, time.Minute)
	if err != nil || token.Token == "" || token.ID == "" || !token.ExpiresAt.After(time.Now()) {
		t.Errorf("%+v, %v", token, err)
	}
	if _, err := c.Hosts.CreateToken(ctx, time.Millisecond); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
}

func TestWebhooks(t *testing.T) {
	type message struct {
		header http.Header
		body   []byte
	}
	came := make(chan message, 16)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		came <- message{r.Header, body}
	}))
	defer receiver.Close()
	c, ctx := newClient(t, newWorld(t)), t.Context()
	secret, hook, err := c.Webhooks.Create(ctx, client.WebhookOptions{URL: receiver.URL, States: []client.State{client.Running}})
	if err != nil || !hook.Active || len(hook.States) != 1 || hook.URL != receiver.URL || !hook.FailingSince.IsZero() {
		t.Fatalf("%+v, %v", hook, err)
	}
	sent, err := c.Webhooks.Test(ctx, hook.ID)
	if err != nil || sent.Type != "webhook.test" || sent.SandboxID != "" {
		t.Fatalf("%+v, %v", sent, err)
	}
	next := func() (m message) {
		t.Helper()
		select {
		case m = <-came:
		case <-time.After(20 * time.Second):
			t.Fatal("no message came")
		}
		return m
	}
	m := next()
	if err := client.VerifyWebhook(secret, m.header, m.body); err != nil || m.header.Get("Webhook-Id") != sent.ID {
		t.Error(err, m.header)
	}
	if err := client.VerifyWebhook(secret, m.header, append(m.body, ' ')); !errors.Is(err, client.ErrUnauthenticated) {
		t.Error(err)
	}
	if err := client.VerifyWebhook(webhook.NewSecret(), m.header, m.body); !errors.Is(err, client.ErrUnauthenticated) {
		t.Error(err)
	}
	if err := client.VerifyWebhook("x", m.header, m.body); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	delivered := func() (list []*client.Delivery) { // what is redelivered while it is under way is sent once
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if list = all(t, c.Webhooks.Deliveries(ctx, hook.ID)); len(list) == 1 && list[0].State == client.DeliveryDelivered {
				break
			}
		}
		return list
	}
	delivered()
	if again, err := c.Webhooks.Redeliver(ctx, hook.ID, sent.ID); err != nil || again.ID != sent.ID {
		t.Errorf("%+v, %v", again, err)
	}
	next()
	if list := delivered(); len(list) != 1 || list[0].ID != sent.ID || list[0].Attempts == 0 {
		t.Errorf("%+v", list)
	}
	off, err := c.Webhooks.Update(ctx, hook.ID, client.WebhookOptions{States: []client.State{}, Active: new(false)})
	if err != nil || off.Active || len(off.States) != 0 || off.URL != hook.URL {
		t.Errorf("%+v, %v", off, err)
	}
	if got, err := c.Webhooks.Get(ctx, hook.ID); err != nil || got.Active {
		t.Errorf("%+v, %v", got, err)
	}
	if list := all(t, c.Webhooks.List(ctx)); len(list) != 1 {
		t.Error(list)
	}
	if err := c.Webhooks.Delete(ctx, hook.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Webhooks.Get(ctx, hook.ID); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
}

func TestPortsMetricsAndTemplates(t *testing.T) {
	c, ctx := newClient(t, newWorld(t)), t.Context()
	sb := create(t, c, client.CreateOptions{Public: true, AutoResume: true})
	port, err := sb.Port(ctx, 8000)
	if err != nil || !port.Public || !strings.Contains(port.URL, "8000-"+strings.TrimPrefix(sb.ID, "cl-")) || !sb.Public || !sb.AutoResume {
		t.Errorf("%+v, %+v, %v", port, sb, err)
	}
	if changed, err := sb.Update(ctx, client.UpdateOptions{Public: new(false), AutoResume: new(false)}); err != nil || changed.Public || changed.AutoResume {
		t.Errorf("%+v, %v", changed, err)
	}
	if _, err := sb.Port(ctx, 65536); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	if token, err := sb.CreateAccessToken(ctx); err != nil || !strings.HasPrefix(token, "wrenn_port_") {
		t.Error(token, err)
	}
	if err := sb.RevokeAccessTokens(ctx); err != nil {
		t.Error(err)
	}
	if m, err := sb.Metrics(ctx); err != nil || m.At.IsZero() {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := sb.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Metrics(ctx); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
	base, err := c.Templates.Get(ctx, "base")
	if err != nil || base.Name != "base" || base.DiskBytes == 0 {
		t.Errorf("%+v, %v", base, err)
	}
	if err := c.Templates.Delete(ctx, "none"); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	if err := c.Templates.Delete(ctx, "base"); !errors.Is(err, client.ErrFailedPrecondition) {
		t.Error(err)
	}
}
