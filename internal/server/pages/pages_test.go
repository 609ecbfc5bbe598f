package pages

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"wrenn.dev/wrenn/web"
)

// handler is the pages beside an API that says which request came to it.
func handler() http.Handler {
	return Beside(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api", r.Method+" "+r.URL.Path)
		w.WriteHeader(http.StatusTeapot)
	}))
}

func ask(h http.Handler, method, path string, header http.Header) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
	r.Header = header
	h.ServeHTTP(w, r)
	return w
}

// references find what a page, style or module loads, by extension.
var references = map[string]*regexp.Regexp{
	".html": regexp.MustCompile(`(?:src|href)="([^"]+)"`), ".js": regexp.MustCompile(`(?m)^import .* from '([^']+)';`),
	".css": regexp.MustCompile(`(?:@import\s+|url\()['"]?([^'")]+)`), ".svg": regexp.MustCompile(`href="([^"]+)"`),
}

// addresses are those of every file, with the files that have them.
func addresses(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for pattern, name := range places {
		all[strings.TrimSuffix(pattern, "{$}")] = name
	}
	err := fs.WalkDir(web.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && path.Ext(name) != ".html" {
			all[assets+name] = name
		}
		return err
	})
	if err != nil || len(all) < 10 {
		t.Fatal(all, err)
	}
	return all
}

func TestEveryFile(t *testing.T) {
	h, all := handler(), addresses(t)
	for address, name := range all {
		want, err := web.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := ask(h, "GET", address, nil)
		if got.Code != http.StatusOK || got.Body.String() != string(want) {
			t.Errorf("%s: %d with %d bytes, want %s", address, got.Code, got.Body.Len(), name)
		}
		for header, value := range map[string]string{"Content-Type": types[path.Ext(name)], "Content-Security-Policy": policy,
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"} {
			if got.Header().Get(header) != value || value == "" {
				t.Errorf("%s: %s is %q, want %q", address, header, got.Header().Get(header), value)
			}
		}
		etag := got.Header().Get("ETag")
		again := ask(h, "GET", address, http.Header{"If-None-Match": {etag}})
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 || etag == "" {
			t.Errorf("%s: %d for the ETag %q", address, again.Code, etag)
		}
		if head := ask(h, "HEAD", address, nil); head.Code != http.StatusOK || head.Body.Len() > 0 || head.Header().Get("ETag") != etag {
			t.Errorf("%s: HEAD is answered with %d, %d bytes", address, head.Code, head.Body.Len())
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if other := ask(h, method, address, nil); other.Code != http.StatusMethodNotAllowed || other.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, address, other.Code, other.Header().Get("Allow"))
			}
		}
	}
}

// TestWhatPagesLoad is there, and ours.
func TestWhatPagesLoad(t *testing.T) {
	h := handler()
	for address, name := range addresses(t) {
		body, err := web.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range references[path.Ext(name)].FindAllStringSubmatch(string(body), -1) {
			to := match[1]
			if strings.HasPrefix(to, "./") {
				to = path.Join(path.Dir(address), to)
			}
			if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
				t.Errorf("%s refers to %s", name, to)
				continue
			}
			if got := ask(h, "GET", to, nil); got.Code != http.StatusOK && got.Header().Get("Api") == "" {
				t.Errorf("%s refers to %s: %d", name, to, got.Code)
			}
			if strings.HasPrefix(to, assets) && ask(h, "GET", to, nil).Code != http.StatusOK {
				t.Errorf("%s refers to %s, which is not there", name, to)
			}
		}
		if strings.Contains(string(body), "<style") || regexp.MustCompile(`<script[^>]*>[^<]|\son[a-z]+="|\sstyle="`).Match(body) {
			t.Errorf("%s has a script or a style in it, which the policy forbids", name)
		}
	}
}

// TestTheRestIsTheAPIs, also what only looks like a page.
func TestTheRestIsTheAPIs(t *testing.T) {
	h := handler()
	for _, c := range [][2]string{{"GET", "/v1/sandboxes"}, {"POST", "/v1/sandboxes"}, {"GET", "/healthz"}, {"GET", "/tests"}, {"GET", "/assets/"},
		{"GET", "/assets/web.go"}, {"GET", "/assets/test/index.html"}, {"GET", "/test/"}, {"DELETE", "/nothing"}} {
		if got := ask(h, c[0], c[1], nil); got.Code != http.StatusTeapot || got.Header().Get("Api") != c[0]+" "+c[1] {
			t.Errorf("%s %s: %d %q", c[0], c[1], got.Code, got.Header().Get("Api"))
		}
	}
}
