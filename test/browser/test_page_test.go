//go:build browsertest

package browser

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// beside has connections of its own for each request, which nothing breaks.
var beside = http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// call asks the API beside the page.
func (p *page) call(method, path, body string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.Key)
	resp, err := beside.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		p.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, answer, err)
	}
	return string(answer)
}

var aTime = regexp.MustCompile(`^\d\d:\d\d:\d\d[\s\S]*\d (ms|s)$`)

// TestALife goes through a sandbox's whole life by the page.
func TestALife(t *testing.T) {
	p := working(t)
	p.shows("#no-sandboxes", "There are none")
	first := p.create()
	p.run("echo $((6 * 7))")
	p.shows("#output", "42\n")
	p.click("#pause")
	p.shows("#facts .state", "paused")
	p.shows(row(first), "paused")
	if !eval[bool](p, "document.querySelector('#exec [type=submit]').disabled && document.querySelector('#pause').disabled") {
		t.Error("a paused sandbox's buttons can be pressed")
	}
	p.click("#resume")
	p.shows("#facts .state", "running")

	p.fill("#clones", "2")
	p.click("#fork button")
	p.until("document.querySelectorAll('#sandboxes li').length === 3")
	p.until("!document.querySelector('#freeze button').disabled") // the events may tell of the clones before the fork is answered
	p.enter("#name", "golden")
	p.shows("#snapshots", "golden")
	p.click("#snapshots [data-key=golden] button")
	started := p.other(first)
	if !strings.Contains(p.call("GET", "/v1/sandboxes/"+started, ""), `"snapshot_id"`) {
		t.Error("it did not start from the snapshot")
	}
	p.sure("#destroy")
	p.shows("#facts .state", "stopped")
	p.until("document.querySelectorAll('#sandboxes li').length === 3")
	for range 3 {
		p.click("#sandboxes li button")
		p.sure("#destroy")
		p.shows("#facts .state", "stopped")
	}
	p.shows("#no-sandboxes", "There are none")
	p.sure("#snapshots [data-key=golden] button:last-child")
	p.shows("#no-snapshots", "There are none")
	if all := p.call("GET", "/v1/sandboxes", ""); !strings.Contains(all, `"sandboxes":[]`) {
		t.Errorf("the server has %s", all)
	}
	for operation, times := range map[string]int{"sign in": 1, "create": 2, "exec": 1, "pause": 1, "resume": 1, "fork": 1,
		"snapshot": 1, "destroy": 4, "delete snapshot": 1} {
		selector := fmt.Sprintf("#activity li[data-operation='%s'][data-result=done]", operation)
		lines := eval[[]string](p, "[...document.querySelectorAll("+quoted(selector)+")].map((l) => l.innerText)")
		if len(lines) != times {
			t.Errorf("%s is in the log %d times, want %d: %q", operation, len(lines), times, lines)
		}
		for _, line := range lines {
			if !aTime.MatchString(line) {
				t.Errorf("%s is in the log as %q, without a time", operation, line)
			}
		}
	}
	p.shows("#activity .event", "is stopped")
}

// TestWhatOthersDo is in the list by itself, also after the connection broke.
func TestWhatOthersDo(t *testing.T) {
	p := working(t)
	idOf := func(answer string) string { return regexp.MustCompile(`cl-[0-9a-z]{20}`).FindString(answer) }
	first := idOf(p.call("POST", "/v1/sandboxes", `{"template":"base"}`))
	p.shows(row(first), "running")
	p.call("POST", "/v1/sandboxes/"+first+"/pause", "")
	p.shows(row(first), "paused")
	p.allow("net::ERR_") // what the browser says of a connection that breaks
	p.HTTP.CloseClientConnections()
	second := idOf(p.call("POST", "/v1/sandboxes", `{"template":"base"}`))
	p.shows(row(second), "running")
	p.call("DELETE", "/v1/sandboxes/"+first, "")
	p.until("!document.querySelector(" + quoted(row(first)) + ")")
}

// TestHostileTexts stay texts: a command's output, an error, and metadata, with the field, the fix and the request's id of the error.
func TestHostileTexts(t *testing.T) {
	const attack = `<img src=x onerror="window.broken = 1"><script>window.broken = 1</script>`
	p := working(t)
	p.click("#create summary")
	p.fill("#metadata", "a="+attack)
	p.create()
	p.shows("#facts", attack)
	p.fill("#metadata", "no entry")
	p.click("#create [type=submit]")
	p.shows("#create .problem", "give name=value")
	p.run(`printf '%s\n\377\303\274\n' '` + attack + `'; echo to stderr >&2; exit 3`)
	p.shows("#output", attack)
	p.shows("#output", "\uFFFDü")
	p.shows("#output .stderr", "to stderr")
	p.shows("#output .end", "exit status 3")
	p.allow("status of 400")
	p.enter("#name", attack[:64])
	for _, selector := range []string{"#detail-problem", "#activity .error"} {
		p.shows(selector, attack[:12])
		for _, part := range []string{"invalid_argument", "name", "lower-case letters", "rq-"} {
			p.shows(selector, part)
		}
	}
	p.until("document.querySelector('#name').getAttribute('aria-invalid') === 'true'")
	if n := eval[int](p, "document.querySelectorAll('#work img, #work script').length"); n != 0 || eval[bool](p, "window.broken === 1") {
		t.Errorf("a text became %d elements", n)
	}
	// And what the policy is for: a text that is put in as HTML all the same is refused.
	p.allow("ContentSecurityPolicyIssue")
	p.allow("TrustedHTML")
	if got := eval[string](p, "(() => { try { document.body.innerHTML = 'x'; return 'done' } catch (e) { return e.name } })()"); got != "TypeError" {
		t.Errorf("HTML of a text: %s", got)
	}
}

// TestOutputWithoutEnd is bounded, and ends when its reader stops it.
func TestOutputWithoutEnd(t *testing.T) {
	p := working(t)
	p.create()
	p.enter("#command", "yes 0123456789; true")
	p.until("document.querySelector('#output').textContent.length > 200000")
	long := p.text("#detail-title")
	p.click("#create [type=submit]") // it goes on while another one is looked at
	p.other(long)
	p.run("echo aside")
	p.shows("#output", "aside\n")
	p.click(row(long))
	p.click("#stop")
	p.shows("#output .end", "stopped")
	if n := eval[int](p, "document.querySelector('#output').textContent.length"); n > 1<<20 {
		t.Errorf("%d characters are kept", n)
	}
	p.run("echo on")
	p.shows("#output", "on\n")
}

// TestTheKey is in the tab alone, and as long as it is to be.
func TestTheKey(t *testing.T) {
	p := open(t, "/test")
	p.allow("status of 401")
	p.signIn("wrenn_wrong")
	p.shows("#sign-in-problem", "unauthenticated")
	p.signIn(p.Key)
	p.until("document.querySelector('#live[data-on]')")
	places := "[Object.values(sessionStorage).join(), " +
		"Object.values(localStorage).join() + document.cookie + location.href + document.documentElement.outerHTML]"
	p.allow("PerformanceIssue") // that somebody reads the cookies: this test
	if at := eval[[]string](p, places); at[0] != p.Key || strings.Contains(at[1], p.Key) {
		t.Errorf("the session has %q, and others %v", at[0], strings.Contains(at[1], p.Key))
	}
	p.do(chromedp.Reload())
	p.until("document.querySelector('#live[data-on]')")
	p.click("#sign-out")
	p.until("document.querySelector('#sign-in')?.hidden === false && document.readyState === 'complete'")
	if at := eval[[]string](p, places); at[0] != "" {
		t.Errorf("it is still there: %q", at[0])
	}
}

// TestForEveryone looks for what a phone, a keyboard and a screen reader need.
func TestForEveryone(t *testing.T) {
	p := working(t)
	p.create()
	for _, path := range []string{"", "/docs"} {
		if path != "" {
			p.do(chromedp.Navigate(p.URL + path))
			p.until("document.querySelector('article')")
		}
		unnamed := eval[[]string](p, `[...document.querySelectorAll('input, select, textarea, button, pre[tabindex]')].filter((e) =>
			!(e.labels?.length > 0 || e.ariaLabel || e.innerText?.trim() || e.closest('[hidden], details:not([open])'))).map((e) => e.outerHTML)`)
		if len(unnamed) > 0 {
			t.Errorf("without a name: %q", unnamed)
		}
		p.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
		if wide := eval[int](p, "document.documentElement.scrollWidth"); wide > 360 {
			t.Errorf("on a phone of 360 points, %q has %d", path, wide)
		}
		for _, scheme := range []string{"light", "dark"} {
			features := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
			if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, features); err != nil {
				t.Fatal(err)
			}
			if ratio := eval[float64](p, contrast); ratio < 7 {
				t.Errorf("%s: the text's contrast is %.1f", scheme, ratio)
			}
		}
		p.do(chromedp.ResetViewport())
	}
}

// contrast is WCAG's, of the page's text on its ground.
const contrast = `(() => {
	const light = (colour) => colour.match(/\d+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const style = getComputedStyle(document.body), [a, b] = [light(style.color), light(style.backgroundColor)];
	return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()`
