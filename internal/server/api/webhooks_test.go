package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/webhook"
)

func (w *world) webhook(body string) rest.NewWebhook {
	w.t.Helper()
	return as[rest.NewWebhook](w.t, w.do(call{method: "POST", path: "/v1/webhooks", body: body}), 201)
}

// deliveries waits until a webhook has deliveries that are as they should be.
func (w *world) deliveries(id string, are func([]rest.WebhookDelivery) bool) []rest.WebhookDelivery {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		page := as[rest.WebhookDeliveryPage](w.t, w.do(call{method: "GET", path: "/v1/webhooks/" + id + "/deliveries"}), 200)
		if are(page.Deliveries) {
			return page.Deliveries
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("they are %+v", page.Deliveries)
		}
	}
}

// TestAWebhooksLife makes one, gets what a sandbox's life sends to it, and verifies it as a receiver does.
func TestAWebhooksLife(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	var mu sync.Mutex
	var types []string
	var secret string
	receiver := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			err = webhook.Verify(r.Header, body, time.Now(), secret)
		}
		var m rest.WebhookMessage
		dec := json.NewDecoder(strings.NewReader(string(body)))
		dec.DisallowUnknownFields()
		if err != nil || dec.Decode(&m) != nil {
			t.Errorf("%s: %v", body, err)
		}
		types = append(types, m.Type)
	}))
	defer receiver.Close()
	mu.Lock()
	made := w.webhook(`{"url":"` + receiver.URL + `/hook","states":["running","paused"]}`)
	secret = made.Secret
	mu.Unlock()
	id := made.Webhook.ID
	sb := w.create(`{"template":"base"}`)
	w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/pause"})
	list := w.deliveries(id, func(l []rest.WebhookDelivery) bool {
		return len(l) == 2 && l[0].State == rest.DeliveryDelivered && l[1].State == rest.DeliveryDelivered
	})
	mu.Lock()
	if !slices.Equal(types, []string{"sandbox.running", "sandbox.paused"}) {
		t.Errorf("got %q", types)
	}
	mu.Unlock()
	if list[0].Type != "sandbox.paused" || *list[0].SandboxID != sb.ID || *list[0].LastStatus != 200 || list[0].Attempts != 1 {
		t.Errorf("%+v", list[0])
	}
	page := as[rest.WebhookDeliveryPage](t, w.do(call{method: "GET", path: "/v1/webhooks/" + id + "/deliveries?limit=1"}), 200)
	next := as[rest.WebhookDeliveryPage](t, w.do(call{method: "GET", path: "/v1/webhooks/" + id + "/deliveries?limit=1&cursor=" + *page.NextCursor}),
		200)
	if page.Deliveries[0].ID != list[0].ID || next.Deliveries[0].ID != list[1].ID || next.NextCursor != nil {
		t.Error(page, next)
	}
	fails(t, w.do(call{method: "GET", path: "/v1/webhooks/" + id + "/deliveries?cursor=x"}), 400, rest.InvalidArgument)
	again := as[rest.WebhookDelivery](t, w.do(call{method: "POST", path: "/v1/webhooks/" + id + "/deliveries/" + list[0].ID + "/redeliver"}), 200)
	if again.State != rest.DeliveryPending || again.NextAttemptAt == nil {
		t.Errorf("%+v", again)
	}
	test := as[rest.WebhookDelivery](t, w.do(call{method: "POST", path: "/v1/webhooks/" + id + "/test"}), 201)
	w.deliveries(id, func(l []rest.WebhookDelivery) bool {
		return l[0].ID == test.ID && l[0].State == rest.DeliveryDelivered && l[1].Attempts == 2 && l[1].State == rest.DeliveryDelivered
	})
	off := as[rest.Webhook](t, w.do(call{method: "PATCH", path: "/v1/webhooks/" + id, body: `{"active":false,"states":[]}`}), 200)
	if off.Active || len(off.States) != 0 || off.URL != made.Webhook.URL {
		t.Errorf("%+v", off)
	}
	fails(t, w.do(call{method: "POST", path: "/v1/webhooks/" + id + "/test"}), 409, rest.FailedPrecondition)
	if got := as[rest.Webhook](t, w.do(call{method: "GET", path: "/v1/webhooks/" + id}), 200); got.Active {
		t.Errorf("%+v", got)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/webhooks/" + id}), 204)
	for _, c := range []call{{method: "GET", path: "/v1/webhooks/" + id}, {method: "DELETE", path: "/v1/webhooks/" + id},
		{method: "PATCH", path: "/v1/webhooks/" + id, body: `{"active":true}`}, {method: "GET", path: "/v1/webhooks/" + id + "/deliveries"},
		{method: "POST", path: "/v1/webhooks/" + id + "/test"}, {method: "POST", path: "/v1/webhooks/" + id + "/deliveries/" + test.ID + "/redeliver"}} {
		fails(t, w.do(c), 404, rest.NotFound)
	}
}

func TestWebhooksAreTheTeams(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	secret := webhook.NewSecret()
	body := `{"url":"https://receiver.internal/","secret":"` + secret + `","active":false}`
	first := as[rest.NewWebhook](t, w.do(call{method: "POST", path: "/v1/webhooks", body: body, header: map[string]string{"Idempotency-Key": "k"}}), 201)
	same := as[rest.NewWebhook](t, w.do(call{method: "POST", path: "/v1/webhooks", body: body, header: map[string]string{"Idempotency-Key": "k"}}), 201)
	if first.Secret != secret || same.Webhook.ID != first.Webhook.ID || first.Webhook.Active {
		t.Error(first, same)
	}
	_, other := w.NewTeam("theirs")
	fails(t, w.do(call{method: "GET", path: "/v1/webhooks/" + first.Webhook.ID, key: other}), 404, rest.NotFound)
	fails(t, w.do(call{method: "DELETE", path: "/v1/webhooks/" + first.Webhook.ID, key: other}), 404, rest.NotFound)
	if page := as[rest.WebhookPage](t, w.do(call{method: "GET", path: "/v1/webhooks", key: other}), 200); len(page.Webhooks) != 0 {
		t.Error(page)
	}
	for range 15 {
		w.webhook(`{"url":"https://receiver.internal/"}`)
	}
	fails(t, w.do(call{method: "POST", path: "/v1/webhooks", body: `{"url":"https://receiver.internal/"}`}), 429, rest.ResourceExhausted)
	page := as[rest.WebhookPage](t, w.do(call{method: "GET", path: "/v1/webhooks?limit=10"}), 200)
	rest2 := as[rest.WebhookPage](t, w.do(call{method: "GET", path: "/v1/webhooks?limit=10&cursor=" + *page.NextCursor}), 200)
	if len(page.Webhooks) != 10 || len(rest2.Webhooks) != 6 || rest2.NextCursor != nil {
		t.Error(len(page.Webhooks), len(rest2.Webhooks))
	}
	path := "/v1/webhooks/" + first.Webhook.ID
	for field, c := range map[string]call{
		"url":      {method: "POST", path: "/v1/webhooks", body: `{"url":"ftp://receiver.internal/"}`},
		"secret":   {method: "POST", path: "/v1/webhooks", body: `{"url":"https://receiver.internal/","secret":"whsec_` + strings.Repeat("A", 88) + `=="}`},
		"states.0": {method: "PATCH", path: path, body: `{"states":["gone"]}`},
		"body":     {method: "PATCH", path: path, body: `{}`},
	} {
		if e := fails(t, w.do(c), 400, rest.InvalidArgument); e.Field == nil || *e.Field != field || e.Fix == nil {
			t.Errorf("%s: %+v", field, e)
		}
	}
	if e := fails(t, w.do(call{method: "PATCH", path: path, body: `{"url":"https://u@receiver.internal/"}`}), 400,
		rest.InvalidArgument); *e.Field != "url" {
		t.Error(e)
	}
}

func TestWhatASandboxTakes(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base"}`)
	m := as[rest.SandboxMetrics](t, w.do(call{method: "GET", path: "/v1/sandboxes/" + sb.ID + "/metrics"}), 200)
	if m.SandboxID != sb.ID || m.At.IsZero() || m.Pager == nil || m.Pager.Faults != 3 || m.NetworkReceivedBytes == nil || *m.NetworkReceivedBytes != 2 ||
		*m.NetworkSentBytes != 1 {
		t.Errorf("%+v", m)
	}
	w.do(call{method: "POST", path: "/v1/sandboxes/" + sb.ID + "/pause"})
	fails(t, w.do(call{method: "GET", path: "/v1/sandboxes/" + sb.ID + "/metrics"}), 409, rest.FailedPrecondition)
	fails(t, w.do(call{method: "GET", path: "/v1/sandboxes/cl-0123456789abcdefghij/metrics"}), 404, rest.NotFound)
}
