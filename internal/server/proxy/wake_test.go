package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/sandbox"
)

// resumes is how often a sandbox was resumed.
func (w *world) resumes(id string) (n int) {
	w.t.Helper()
	info, err := w.Agent.Get(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range info.Changes {
		if c.State == sandbox.Resuming {
			n++
		}
	}
	return n
}

// TestTrafficWakesOnce however many requests come at once, and all of them are answered.
func TestTrafficWakesOnce(t *testing.T) {
	w := newWorld(t)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) })
	id := w.create(`,"public":true,"auto_resume":true`)
	w.get(id, 8000, 200) // there is a connection, and a route
	for round := range 3 {
		w.api("POST", "/v1/sandboxes/"+id+"/pause", "", 200)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				client := w.client
				if i%2 == 1 {
					client = w.h2
				}
				body := fmt.Sprint("request ", i)
				resp, err := client.Do(w.request("POST", id, 8000, "/", strings.NewReader(body)))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if got, err := io.ReadAll(resp.Body); string(got) != body || err != nil || resp.StatusCode != 200 {
					t.Errorf("round %d: %d %q %v", round, resp.StatusCode, got, err)
				}
			})
		}
		all.Wait()
		if n := w.resumes(id); n != round+1 {
			t.Errorf("it was resumed %d times, want %d", n, round+1)
		}
	}
	w.api("DELETE", "/v1/sandboxes/"+id, "", 204)
	w.get(id, 8000, 502)
}

// TestARefusedRequestWakesNothing: without a token, and where waking was not asked for.
func TestARefusedRequestWakesNothing(t *testing.T) {
	w := newWorld(t)
	w.open(8000, hello)
	private, plain := w.create(`,"auto_resume":true`), w.create(`,"public":true`)
	token := w.token(private)
	for _, id := range []string{private, plain} {
		w.api("POST", "/v1/sandboxes/"+id+"/pause", "", 200)
	}
	w.get(private, 8000, 403)
	w.get(plain, 8000, 502)
	w.get(private, 49983, 404, "Wrenn-Access-Token", token)
	for _, id := range []string{private, plain} {
		if state := w.api("GET", "/v1/sandboxes/"+id, "", 200)["state"]; state != "paused" {
			t.Errorf("it is %v", state)
		}
	}
	w.get(private, 8000, 200, "Wrenn-Access-Token", token)
}
