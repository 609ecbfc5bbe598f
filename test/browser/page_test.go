//go:build browsertest

// Package browser uses the server's pages as a person does, in headless Chromium, on a real server and agent over a host in memory.
package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/servertest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// patience is how long anything may take that is waited for.
const patience = 30 * time.Second

// page is a tab of a browser of its own, at a server of its own.
type page struct {
	*servertest.World
	t   *testing.T
	ctx context.Context

	mu sync.Mutex
	// allowed are parts of complaints that the test means to cause.
	allowed []string
}

// browser is the path of the browser that tools/deps installs.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no Chromium; tools/deps installs it")
	return ""
}

// open opens a page of the server. Requests to any other place, errors in the console, and what the page's policy forbids fail the test.
func open(t *testing.T, path string) *page {
	t.Helper()
	w := servertest.New(t, servertest.Config{Guest: servertest.OnThisMachine(t)})
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser(t)), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, // as root it has none; what it opens is ours
		chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WindowSize(1200, 900))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	p := &page{World: w, t: t}
	var cancel context.CancelFunc
	p.ctx, cancel = chromedp.NewContext(allocator, chromedp.WithListener(p.hear))
	t.Cleanup(func() {
		if err := chromedp.Cancel(p.ctx); err != nil { // and waits for it
			t.Error(err)
		}
		cancel()
		end()
	})
	// The browser lives as long as the first context that it is given.
	_, err1 := chromedp.Call(p.ctx, network.Enable, network.EnableParams{})
	_, err2 := chromedp.Call(p.ctx, log.Enable, cdp.Empty{})
	_, err3 := chromedp.Call(p.ctx, audits.Enable, cdp.Empty{})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Navigate(w.URL + path))
	return p
}

// hear takes what the browser tells.
func (p *page) hear(event any) {
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, p.URL+"/") {
			p.t.Errorf("it asked another place: %s", e.Request.URL)
		}
		if strings.Contains(e.Request.URL, p.Key) {
			p.t.Errorf("the key is in an address: %s", e.Request.URL)
		}
	case *runtime.EventExceptionThrown:
		p.complain("an exception: %s", (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *runtime.EventConsoleAPICalled:
		p.complain("the console has %s: %v", e.Type, e.Args)
	case *log.EventEntryAdded:
		p.complain("the log has %s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	case *audits.EventIssueAdded:
		p.complain("an issue: %s", e.Issue.Code)
	}
}

func (p *page) complain(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for _, part := range p.allowed {
		if strings.Contains(text, part) {
			return
		}
	}
	p.t.Error(text)
}

// allow says which complaints of the browser are meant: those that have this part.
func (p *page) allow(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = append(p.allowed, part)
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.ctx, patience, fmt.Errorf("the browser did not do it in %v", patience))
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%v (%v); the page:\n%s", err, context.Cause(ctx), p.text("body"))
	}
}

// eval is the value of an expression in the page.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// quoted is a text as JavaScript has it.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// text is what a person reads in an element.
func (p *page) text(selector string) string {
	p.t.Helper()
	return eval[string](p, "document.querySelector("+quoted(selector)+")?.innerText ?? ''")
}

// until waits until an expression is true.
func (p *page) until(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !eval[bool](p, "Boolean("+expression+")"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it never was so: %s; the page:\n%s", expression, p.text("body"))
		}
	}
}

// shows waits until an element is seen that has a text in it.
func (p *page) shows(selector, part string) {
	p.t.Helper()
	p.until("((e) => e?.checkVisibility() && e.innerText.includes(" + quoted(part) + "))(document.querySelector(" + quoted(selector) + "))")
}

// click presses a button, once it can be pressed.
func (p *page) click(selector string) {
	p.t.Helper()
	p.until("(document.querySelector(" + quoted(selector) + ") ?? {disabled: true}).disabled !== true")
	p.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// sure presses a button that asks once more.
func (p *page) sure(selector string) {
	p.t.Helper()
	p.click(selector)
	p.until("document.querySelector(" + quoted(selector) + ").classList.contains('armed')")
	p.click(selector)
}

// enter types into a field, in place of what is in it, and presses Enter.
func (p *page) enter(selector, text string) {
	p.t.Helper()
	p.fill(selector, text+kb.Enter)
}

// fill types into a field, in place of what is in it.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	eval[string](p, "document.querySelector("+quoted(selector)+").value = ''")
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// run runs a command in the chosen sandbox and returns when it has ended.
func (p *page) run(command string) {
	p.t.Helper()
	p.until("!document.querySelector('#exec [type=submit]').disabled")
	before := eval[int](p, "document.querySelectorAll('#output .end').length")
	p.enter("#command", command)
	p.until(fmt.Sprintf("document.querySelectorAll('#output .end').length > %d", before))
}

// signIn begins to work with a key.
func (p *page) signIn(key string) {
	p.t.Helper()
	p.enter("#key", key)
}

// working is a page that has taken the key and follows the events.
func working(t *testing.T) *page {
	t.Helper()
	p := open(t, "/test")
	p.signIn(p.Key)
	p.until("document.querySelector('#live[data-on]')")
	return p
}

// create presses the button, and returns the new sandbox's id, which is chosen then.
func (p *page) create() string {
	p.t.Helper()
	before := p.text("#detail-title")
	p.click("#create [type=submit]")
	return p.other(before)
}

// other waits until another sandbox than before is chosen, and runs.
func (p *page) other(before string) string {
	p.t.Helper()
	p.until("document.querySelector('#detail-title').innerText !== " + quoted(before))
	p.shows("#facts .state", "running")
	return p.text("#detail-title")
}

// row is the selector of a sandbox's button in the list.
func row(id string) string { return "#sandboxes [data-key=" + id + "] button" }
