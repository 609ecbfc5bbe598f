package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/webhook"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// world is a store with a team, and a server that sends to webhooks wherever they are.
type world struct {
	*store.Store
	t               *testing.T
	url, team, host string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, url: postgrestest.Database(t)}
	var err error
	if w.Store, err = store.Open(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	team, err := w.Team(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	host, err := w.Host(t.Context(), "unix:///there")
	if err != nil {
		t.Fatal(err)
	}
	w.team, w.host = team.ID, host.ID
	return w
}

// run sends until stop or the test ends it.
func (w *world) run() (stop func()) {
	w.t.Helper()
	h := New(w.Store, Targets{Private: true}, slog.New(slog.DiscardHandler))
	h.waitFor = func(int) time.Duration { return 20 * time.Millisecond }
	h.poll = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.t.Cleanup(stop)
	return stop
}

func (w *world) hook(url string, states ...store.State) store.Webhook {
	w.t.Helper()
	hook, err := w.AddWebhook(w.t.Context(), store.NewWebhook{ID: id.NewOf(id.Webhook), Team: w.team, URL: url, Secret: webhook.NewSecret(),
		States: states, Active: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return hook
}

// sandbox makes one that runs: two events.
func (w *world) sandbox() string {
	w.t.Helper()
	sb, err := w.Create(w.t.Context(), store.NewSandbox{ID: id.New(), Team: w.team, Host: w.host, Op: "start", OpTime: time.Hour,
		Sizes: store.Sizes{Template: "base"}, OnExpiry: "destroy", Reason: "asked for"})
	if err == nil {
		_, err = w.Started(w.t.Context(), sb.ID, "start", store.Sizes{Template: "base"}, "it answers")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return sb.ID
}

// deliveries are a webhook's, the newest first.
func (w *world) deliveries(hook store.Webhook) []store.Delivery {
	w.t.Helper()
	list, _, err := w.ListDeliveries(w.t.Context(), w.team, hook.ID, "", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// until waits until something is so.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// received is a message as a receiver got it.
type received struct {
	id, sandbox, typ string
	header           http.Header
	body             []byte
}

// receiver is a real one on this machine, which answers as it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []received
	answer func(w http.ResponseWriter, r *http.Request, n int) // of the n-th message, from 1
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, n int)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var m struct {
			Type string
			Data struct {
				Sandbox string `json:"sandbox_id"`
			}
		}
		if err := errors.Join(err, json.Unmarshal(body, &m)); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.got = append(r.got, received{req.Header.Get("webhook-id"), m.Data.Sandbox, m.Type, req.Header, body})
		n := len(r.got)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(w, req, n)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func status(code int) func(http.ResponseWriter, *http.Request, int) {
	return func(w http.ResponseWriter, _ *http.Request, _ int) { w.WriteHeader(code) }
}

func TestEventsAreSentSigned(t *testing.T) {
	w := newWorld(t)
	w.sandbox() // before there was a webhook
	all, some := newReceiver(t, nil), newReceiver(t, status(204))
	hook, filtered := w.hook(all.URL), w.hook(some.URL, store.Running)
	w.run()
	first, second := w.sandbox(), w.sandbox()
	w.until("all were delivered", func() bool {
		return len(all.all()) == 4 && len(some.all()) == 2 &&
			!slices.ContainsFunc(w.deliveries(hook), func(d store.Delivery) bool { return d.State != store.DeliveryDelivered })
	})
	var told []string
	for _, m := range all.all() {
		if err := webhook.Verify(m.header, m.body, time.Now(), hook.Secret); err != nil {
			t.Error(err)
		}
		if err := webhook.Verify(m.header, m.body, time.Now(), filtered.Secret); err == nil {
			t.Error("another webhook's secret is as good")
		}
		if m.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(m.id, id.Delivery) {
			t.Error(m.header)
		}
		told = append(told, m.sandbox+" "+m.typ)
	}
	slices.Sort(told)
	want := []string{first + " sandbox.running", first + " sandbox.starting", second + " sandbox.running", second + " sandbox.starting"}
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
	for _, d := range w.deliveries(hook) {
		if d.Attempts != 1 || d.LastStatus == nil || *d.LastStatus != 200 || d.LastError != nil || d.NextAttemptAt != nil {
			t.Errorf("%+v", d)
		}
	}
	// A new secret: for a day both are good.
	secret := webhook.NewSecret()
	if _, err := w.UpdateWebhook(t.Context(), w.team, hook.ID, store.WebhookChange{Secret: &secret}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddTest(t.Context(), w.team, hook.ID); err != nil {
		t.Fatal(err)
	}
	w.until("the test came", func() bool { return len(all.all()) == 5 })
	last := all.all()[4]
	if err := errors.Join(webhook.Verify(last.header, last.body, time.Now(), hook.Secret),
		webhook.Verify(last.header, last.body, time.Now(), secret)); err != nil || last.typ != "webhook.test" {
		t.Error(err, string(last.body))
	}
}

// TestWhatFailsIsSentAgain with the same id and body, and messages about one sandbox stay in order all the while.
func TestWhatFailsIsSentAgain(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		if n%3 != 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	hook := w.hook(r.URL)
	w.run()
	for range 3 {
		w.sandbox()
	}
	w.until("all were delivered", func() bool {
		list := w.deliveries(hook)
		return len(list) == 6 && !slices.ContainsFunc(list, func(d store.Delivery) bool { return d.State != store.DeliveryDelivered })
	})
	bodies, ids := map[string]string{}, map[string][]string{}
	for _, m := range r.all() {
		if before, again := bodies[m.id]; again && before != string(m.body) {
			t.Errorf("%s says %s and %s", m.id, before, m.body)
		}
		bodies[m.id] = string(m.body)
		if list := ids[m.sandbox]; len(list) == 0 || list[len(list)-1] != m.typ {
			ids[m.sandbox] = append(list, m.typ)
		}
	}
	for sandbox, types := range ids {
		if !slices.Equal(types, []string{"sandbox.starting", "sandbox.running"}) {
			t.Errorf("%s: %q", sandbox, types)
		}
	}
	if len(bodies) != 6 {
		t.Errorf("%d ids", len(bodies))
	}
	if h, err := w.GetWebhook(t.Context(), w.team, hook.ID); err != nil || h.FailingSince != nil {
		t.Error(h, err)
	}
}

// TestASlowReceiverHoldsUpNoOther: while one answers nothing at all, the others get everything.
func TestASlowReceiverHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	slow := newReceiver(t, func(_ http.ResponseWriter, req *http.Request, _ int) {
		select {
		case <-release:
		case <-req.Context().Done():
		}
	})
	fast := newReceiver(t, nil)
	w.hook(slow.URL)
	w.hook(fast.URL)
	stop := w.run()
	for range 20 {
		w.sandbox()
	}
	w.until("the fast one has all", func() bool { return len(fast.all()) == 40 })
	if n := len(slow.all()); n > perWebhook {
		t.Errorf("the slow one was sent %d at once", n)
	}
	close(release)
	w.until("the slow one has all", func() bool { return len(slow.all()) >= 40 })
	stop()
}

// TestAHolderThatDiesAfterItHasSent: the message was taken, and nobody has written that down. The next holder sends it again, with the same id.
func TestAHolderThatDiesAfterItHasSent(t *testing.T) {
	w := newWorld(t)
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	r := newReceiver(t, func(_ http.ResponseWriter, _ *http.Request, n int) {
		if n == 1 { // the lease ends before the answer
			if _, err := conn.Exec(context.Background(), "UPDATE leases SET lease_until = now() - interval '1 second'"); err != nil {
				t.Error(err)
			}
		}
	})
	hook := w.hook(r.URL, store.Running)
	w.run()
	w.run()
	w.sandbox()
	w.until("it was delivered", func() bool {
		list := w.deliveries(hook)
		return len(list) == 1 && list[0].State == store.DeliveryDelivered
	})
	got := r.all()
	if len(got) < 2 || got[0].id != got[1].id || string(got[0].body) != string(got[1].body) {
		t.Errorf("%d came: %+v", len(got), got)
	}
}

func TestWhatIsNoSuccess(t *testing.T) {
	w := newWorld(t)
	elsewhere := newReceiver(t, nil)
	moved := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	gone := newReceiver(t, status(http.StatusGone))
	endless := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	movedHook, goneHook, endlessHook := w.hook(moved.URL), w.hook(gone.URL), w.hook(endless.URL)
	closed := w.hook("http://127.0.0.1:1/")
	w.run()
	w.sandbox()
	w.until("the one that is gone is off", func() bool {
		h, err := w.GetWebhook(t.Context(), w.team, goneHook.ID)
		return err == nil && !h.Active && h.DisabledReason != nil && strings.Contains(*h.DisabledReason, "410")
	})
	w.until("the endless one has said enough", func() bool {
		list := w.deliveries(endlessHook)
		return len(list) == 2 && list[0].State == store.DeliveryDelivered
	})
	problem := func(hook store.Webhook, says string) func() bool {
		return func() bool {
			return slices.ContainsFunc(w.deliveries(hook), func(d store.Delivery) bool {
				return d.Attempts > 1 && d.State == store.DeliveryPending && d.LastError != nil && strings.Contains(*d.LastError, says)
			})
		}
	}
	w.until("the redirect is no success", problem(movedHook, "redirect"))
	w.until("nobody there is no success", problem(closed, "refused"))
	if n := len(elsewhere.all()); n != 0 {
		t.Errorf("%d went where the redirect said", n)
	}
	if h, err := w.GetWebhook(t.Context(), w.team, movedHook.ID); err != nil || h.FailingSince == nil || !h.Active {
		t.Error(h, err)
	}
	if n := len(gone.all()); n != 1 {
		t.Errorf("%d were sent to one that is gone", n)
	}
}

// TestWhatCanNotBeDeliveredIsGivenUp after its time, and the webhook is switched off after its own.
func TestWhatCanNotBeDeliveredIsGivenUp(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, status(500))
	hook := w.hook(r.URL, store.Running)
	w.run()
	w.sandbox()
	w.until("it failed", func() bool { return len(r.all()) > 1 })
	conn, err := pgx.Connect(t.Context(), w.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	age := func(sql string, by time.Duration) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, by); err != nil {
			t.Fatal(err)
		}
	}
	age("UPDATE webhook_deliveries SET asked_at = now() - $1::interval", giveUp)
	w.until("it was given up", func() bool { return w.deliveries(hook)[0].State == store.DeliveryFailed })
	n := len(r.all())
	if _, err := w.Redeliver(t.Context(), w.team, hook.ID, r.all()[0].id); err != nil { // its time begins anew
		t.Fatal(err)
	}
	w.until("it is sent again", func() bool { return len(r.all()) > n+1 })
	age("UPDATE webhooks SET failing_since = now() - $1::interval", offAfter)
	w.until("the webhook is off", func() bool {
		h, err := w.GetWebhook(t.Context(), w.team, hook.ID)
		return err == nil && !h.Active && h.DisabledReason != nil
	})
	on := true
	if h, err := w.UpdateWebhook(t.Context(), w.team, hook.ID, store.WebhookChange{Active: &on}); err != nil || h.DisabledReason != nil ||
		h.FailingSince != nil {
		t.Error(h, err)
	}
}

func TestWaits(t *testing.T) {
	var sum time.Duration
	for attempt, last := 1, time.Duration(0); attempt < 40; attempt++ {
		d := wait(attempt)
		if d > maxWait || d < firstWait*3/4 || (d < last && last < maxWait*3/4) {
			t.Errorf("after %d attempts: %v, and before it %v", attempt, d, last)
		}
		last = d
		sum += d
	}
	if sum < giveUp {
		t.Errorf("40 attempts are made in %v", sum)
	}
	if a, b := fmt.Sprint(wait(9), wait(9), wait(9)), fmt.Sprint(wait(9), wait(9), wait(9)); a == b {
		t.Error("there is no jitter")
	}
}
