// Package pages serves the server's pages for a person with a browser: where things are, a page to try it, and the API's reference. They are no part
// of the API: its document does not have them, and they need no key, because nothing is in them that is not in the program.
//
//	handler := pages.Beside(api)
//
// A page loads nothing from any other site and runs no script but its own files; its policy has the browser hold it to that. It may be kept by a
// browser or a proxy, and is asked for anew each time, by its ETag.
package pages

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"time"

	"wrenn.dev/wrenn/web"
)

// policy is what a browser lets a page do. No text becomes HTML or script (Trusted Types): what a guest says stays text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// places are the pages with addresses of their own. All other files are below assets.
var places = map[string]string{"/{$}": "index.html", "/test": "test/index.html", "/docs": "docs/index.html"}

const assets = "/assets/"

// types by extension. They are not the machine's: what it knows differs.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// Beside returns a handler that serves the pages, and leaves all other requests to the API.
func Beside(api http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", api)
	for pattern, file := range places {
		add(mux, pattern, read(file))
	}
	err := fs.WalkDir(web.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && path.Ext(name) != ".html" {
			add(mux, assets+name, read(name))
		}
		return err
	})
	if err != nil {
		panic(err) // they are in the program
	}
	return mux
}

// file is one that is served.
type file struct {
	name, etag string
	body       []byte
}

func read(name string) file {
	body, err := web.Files.ReadFile(name)
	if err != nil {
		panic(err) // it is in the program
	}
	sum := sha256.Sum256(body)
	return file{name, `"` + hex.EncodeToString(sum[:16]) + `"`, body}
}

// add serves a file to GET and HEAD, and refuses other methods.
func add(mux *http.ServeMux, pattern string, f file) {
	mux.Handle("GET "+pattern, f)
	mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "a page is there to be read", http.StatusMethodNotAllowed)
	})
}

// ServeHTTP implements http.Handler.
func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", types[path.Ext(f.name)])
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // it is kept, and asked for anew by its ETag
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
}
