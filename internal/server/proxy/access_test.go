package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func hello(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "hello %s", r.RequestURI) }

// TestATokenOpensASandbox and no other one, shown in any of the ways that there are.
func TestATokenOpensASandbox(t *testing.T) {
	w := newWorld(t)
	w.open(8000, hello)
	id, other := w.create(""), w.create("")
	token := w.token(id)
	if !strings.HasPrefix(token, "wrenn_port_") || len(token) < 64 {
		t.Fatalf("%q", token)
	}
	for name, headers := range map[string][]string{"none": nil, "wrong": {"Wrenn-Access-Token", token[:len(token)-1] + "x"},
		"empty": {"Wrenn-Access-Token", ""}, "another sandbox's": {"Wrenn-Access-Token", w.token(other)}, "an API key": {"Authorization", "Bearer " + w.Key}} {
		_, text := w.get(id, 8000, 403, headers...)
		if strings.Contains(text, "hello") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, headers := range [][]string{{"Wrenn-Access-Token", token}, {"E2b-Traffic-Access-Token", token}, {"Cookie", "a=b; wrenn-access-token=" + token},
		{"Cookie", "wrenn-access-token=somebody-elses; wrenn-access-token=" + token}} {
		w.get(id, 8000, 200, headers...)
	}
	w.do(w.client, w.request("GET", id, 8000, "/?wrenn_access_token=wrong", nil), 403)
	w.do(w.client, w.request("POST", id, 8000, "/?wrenn_access_token="+token, nil), 200) // no page is to be gone to
	for range 40 {
		w.token(id) // only the newest are good
	}
	time.Sleep(time.Second) // a route counts as long
	w.get(id, 8000, 403, "Wrenn-Access-Token", token)
	token = w.token(id)
	time.Sleep(time.Second)
	w.get(id, 8000, 200, "Wrenn-Access-Token", token)
	w.api("DELETE", "/v1/sandboxes/"+id+"/access-tokens", "", 204)
	time.Sleep(time.Second)
	w.get(id, 8000, 403, "Wrenn-Access-Token", token)
	if w.api("PATCH", "/v1/sandboxes/"+id, `{"public":true}`, 200)["public"] != true {
		t.Error("it is not public")
	}
	time.Sleep(time.Second)
	w.get(id, 8000, 200)
}

// TestABrowserGetsACookie for the token in a URL, and the URL without it.
func TestABrowserGetsACookie(t *testing.T) {
	w := newWorld(t)
	w.open(8000, hello)
	id := w.create("")
	token := w.token(id)
	req := w.request("GET", id, 8000, "//evil.example/a%2Fb?x=1&wrenn_access_token="+token+"&y=%zz", nil)
	resp, _ := w.do(w.client, req, http.StatusSeeOther)
	if to := resp.Header.Get("Location"); to != "http://"+req.URL.Host+"//evil.example/a%2Fb?x=1&y=%zz" {
		t.Errorf("it goes to %s", to)
	}
	c := resp.Cookies()
	if len(c) != 1 || c[0].Value != token || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || c[0].Domain != "" || c[0].Path != "/" || c[0].Secure {
		t.Errorf("%+v", c)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%v", resp.Header)
	}
	cookie := "wrenn-access-token=" + token
	own := req.URL.Host
	for name, c := range map[string]struct {
		method  string
		headers []string
		status  int
	}{
		"its page":                     {"POST", []string{"Origin", "http://" + own, "Sec-Fetch-Site", "same-origin"}, 200},
		"a person":                     {"GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 200},
		"a link elsewhere":             {"GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		"a form of another sandbox":    {"POST", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, 403},
		"a picture of another sandbox": {"GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		"an old browser's form":        {"POST", []string{"Origin", "http://8000-x.localhost"}, 403},
		"an origin that is hidden":     {"POST", []string{"Origin", "null"}, 403},
	} {
		w.do(w.client, w.request(c.method, id, 8000, "/", nil, append(c.headers, "Cookie", cookie)...), c.status)
		t.Log(name)
	}
}

// TestThePortIsNamedByHeaders where the host is none of a port's, and there alone.
func TestThePortIsNamedByHeaders(t *testing.T) {
	w := newWorld(t)
	w.open(8000, hello)
	id, private := w.create(`,"public":true`), w.create("")
	u, _ := url.Parse(w.URL)
	at := func(host string, headers ...string) *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Add(headers[i], headers[i+1])
		}
		return req
	}
	for _, host := range []string{u.Host, "localhost:" + u.Port(), "sandbox.localhost:" + u.Port()} {
		for _, names := range [][2]string{{"E2b-Sandbox-Id", "E2b-Sandbox-Port"}, {"Wrenn-Sandbox-Id", "Wrenn-Sandbox-Port"}} {
			for _, name := range []string{id, strings.TrimPrefix(id, "cl-")} {
				if _, text := w.do(w.client, at(host, names[0], name, names[1], "8000"), 200); text != "hello /healthz" {
					t.Errorf("%s: %q", host, text)
				}
			}
			w.do(w.client, at(host, names[0], id), 400)
			w.do(w.client, at(host, names[1], "8000"), 400)
			w.do(w.client, at(host, names[0], id, names[1], "8000", names[1], "8001"), 400)
			w.do(w.client, at(host, names[0], id, names[1], "0"), 400)
			w.do(w.client, at(host, names[0], private, names[1], "8000"), 403)
		}
		if _, text := w.do(w.client, at(host), 200); strings.Contains(text, "hello") { // the API's
			t.Errorf("%s: %q", host, text)
		}
	}
	for _, host := range []string{"api.localhost", "example.com"} { // the API alone
		if _, text := w.do(w.client, at(host, "E2b-Sandbox-Id", id, "E2b-Sandbox-Port", "8000"), 200); strings.Contains(text, "hello") {
			t.Errorf("%s: %q", host, text)
		}
	}
	// From a sandbox's page no other sandbox is reached.
	req := w.request("GET", private, 8000, "/", nil, "E2b-Sandbox-Id", id, "E2b-Sandbox-Port", "8000")
	w.do(w.client, req, 403)
	w.do(w.client, at("www.localhost"), 400)
	w.do(w.client, at("8000-"+id+".localhost"), 400)
}

// TestWhyNot: each reason has its status, for a program and for a person.
func TestWhyNot(t *testing.T) {
	w := newWorld(t)
	w.open(8000, hello)
	w.open(8001, func(rw http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err == nil {
			fmt.Fprint(c, "no HTTP at all\r\n")
			c.Close()
		}
	})
	running, asleep, gone := w.create(`,"public":true`), w.create(`,"public":true`), w.create(`,"public":true`)
	w.api("POST", "/v1/sandboxes/"+asleep+"/pause", "", 200)
	w.api("DELETE", "/v1/sandboxes/"+gone, "", 204)
	for name, c := range map[string]struct {
		id      string
		port    int
		status  int
		message string
	}{
		"closed":  {running, 9, 502, "The sandbox is running but port is not open"},
		"broken":  {running, 8001, 502, "The sandbox is running but its server gave no answer that can be read"},
		"paused":  {asleep, 8000, 502, "The sandbox is paused, and does not resume by itself"},
		"gone":    {gone, 8000, 502, "The sandbox was not found"},
		"none":    {"cl-00000000000000000000", 8000, 502, "The sandbox was not found"},
		"private": {w.create(""), 8000, 403, "The access token is missing or not good"},
		"envd's":  {running, 49983, 404, "The port is the sandbox's own"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, text := w.get(c.id, c.port, c.status, "Accept", "application/json")
			var a struct {
				SandboxID, Message, Path string
				Port, Code               int
			}
			if err := json.Unmarshal([]byte(text), &a); err != nil || a.Message != c.message || a.Code != c.status {
				t.Errorf("%s %v", text, err)
			}
			if want := strings.TrimPrefix(c.id, "cl-"); name != "envd's" && a.SandboxID != want || name == "envd's" && a.Path != "/" {
				t.Errorf("%s: want %s", text, want)
			}
			if name == "closed" && a.Port != c.port || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %v", text, resp.Header)
			}
			resp, text = w.get(c.id, c.port, c.status, "Accept", "text/html,*/*;q=0.8", "Sec-Fetch-Mode", "navigate")
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(text, strings.ReplaceAll(c.message, "'", "&#39;")) ||
				!strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%v %s", resp.Header, text)
			}
			if asks := strings.Contains(text, `name="wrenn_access_token"`); asks != (name == "private") {
				t.Errorf("a form: %v", asks)
			}
		})
	}
	w.do(w.client, w.request("CONNECT", running, 8000, "", nil), 405)
	if got := w.raw("GET / HTTP/1.1\r\nHost: 0-x.localhost\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "400 Bad Request") {
		t.Errorf("%q", got)
	}
}

// TestThePortsOfTheAPI are told to who may read, and tokens are made by who may write.
func TestThePortsOfTheAPI(t *testing.T) {
	w := newWorld(t)
	id := w.create("")
	at := "/v1/sandboxes/" + id
	port := w.api("GET", at+"/ports/8000", "", 200)
	if want := w.Domain.URL(id, 8000); port["url"] != want || port["public"] != false {
		t.Errorf("%v, want %s", port, want)
	}
	w.api("GET", at+"/ports/0", "", 400)
	w.api("GET", at+"/ports/65536", "", 400)
	w.api("PATCH", at, `{"public":true,"auto_resume":true}`, 200)
	clones, _ := w.api("POST", at+"/fork", `{"count":1}`, 201)["clones"].([]any)
	clone, _ := clones[0].(map[string]any)["sandbox"].(map[string]any)
	if clone["public"] != false || clone["auto_resume"] != true {
		t.Errorf("a clone is %v", clone)
	}
	w.api("DELETE", at, "", 204)
	w.api("POST", at+"/access-tokens", "", 409)
	w.api("PATCH", at, `{"public":false}`, 409)
	for _, path := range []string{"/ports/1", "/access-tokens"} {
		w.api(map[string]string{"/ports/1": "GET", "/access-tokens": "POST"}[path], "/v1/sandboxes/cl-00000000000000000000"+path, "", 404)
	}
	w.api("DELETE", "/v1/sandboxes/cl-00000000000000000000/access-tokens", "", 404)
}
