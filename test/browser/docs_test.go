//go:build browsertest

package browser

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/openapi"
)

// TestReference has every operation of the document, each with its command, and finds them.
func TestReference(t *testing.T) {
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, "/docs")
	p.until("document.querySelector('article')")
	shown := eval[[]string](p, "[...document.querySelectorAll('article[data-operation]')].map((a) => a.dataset.operation)")
	if len(shown) != len(doc.Operations) {
		t.Errorf("it shows %d operations of %d", len(shown), len(doc.Operations))
	}
	for pattern, op := range doc.Operations {
		method, path, _ := strings.Cut(pattern, " ")
		if !slices.Contains(shown, op.ID) {
			t.Errorf("%s is missing", op.ID)
			continue
		}
		text := p.text("#" + op.ID)
		for _, part := range []string{method, path, "curl ", "$WRENN_URL/"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s has no %q:\n%s", op.ID, part, text)
			}
		}
		if op.Scope != "" && !strings.Contains(text, "scope "+op.Scope) {
			t.Errorf("%s does not tell its scope", op.ID)
		}
	}
	broken := eval[[]string](p, `[...document.querySelectorAll('a[href^="#"]')].map((a) => a.getAttribute('href').slice(1))
		.filter((id) => !document.getElementById(id))`)
	doubled := eval[int](p, "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.length - new Set(ids).size; })()")
	if len(broken) > 0 || doubled > 0 {
		t.Errorf("links to nothing: %q; %d ids twice", broken, doubled)
	}
	if strings.Contains(p.text("main"), "[object") {
		t.Error("an element is shown as a text")
	}
	p.fill("#search", "ttl_seconds metadata")
	p.shows("#found", "found")
	if !eval[bool](p, "!document.getElementById('updateSandbox').hidden && document.getElementById('listKeys').hidden") {
		t.Error("the search does not find")
	}
}

// TestFront says where things are.
func TestFront(t *testing.T) {
	p := open(t, "/")
	for _, path := range []string{"/test", "/docs"} {
		p.click(`main a[href="` + path + `"]`)
		p.until("location.pathname === " + quoted(path))
		p.do(chromedp.NavigateBack())
		p.until("location.pathname === '/'")
	}
}
