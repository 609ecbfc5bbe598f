package proxy

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/store"
)

// refusal is why a request does not reach its port. It is an error, for what is found out while a connection is made.
type refusal struct {
	status         int
	title, message string
	port           bool   // the answer tells the port
	path           string // the answer tells the path instead of the sandbox
	token          bool   // the page asks for a token
}

// Error implements error.
func (r *refusal) Error() string { return r.message }

// The refusals. A sandbox that is not there is a 502 and not a 404, which would be its own server's word.
var (
	notFound  = refusal{status: http.StatusBadGateway, title: "Sandbox not found", message: "The sandbox was not found"}
	forbidden = refusal{status: http.StatusForbidden, title: "Access token needed", message: "The access token is missing or not good", token: true}
	paused    = refusal{status: http.StatusBadGateway, title: "Sandbox paused", message: "The sandbox is paused, and does not resume by itself"}
	noRoom    = refusal{status: http.StatusTooManyRequests, title: "No room", message: "The sandbox is paused, and there is no room for it to resume"}
	notWoken  = refusal{status: http.StatusBadGateway, title: "Sandbox not resumed", message: "The sandbox is paused, and it could not be resumed"}
	tooMany   = refusal{status: http.StatusTooManyRequests, title: "Too many connections", message: "Too many requests to the sandbox are under way"}
	silent    = refusal{status: http.StatusBadGateway, title: "No answer", message: "The sandbox is running but does not answer", port: true}
	brokeOff  = refusal{status: http.StatusBadGateway, title: "No answer", message: "The sandbox is running but its server gave no answer that can be read", port: true}
	trouble   = refusal{status: http.StatusServiceUnavailable, title: "Try again", message: "It can't be said now whether there is such a sandbox; try again"}
	noTunnels = refusal{status: http.StatusMethodNotAllowed, title: "No tunnels", message: "CONNECT is not forwarded"}
)

func portClosed(port int) *refusal {
	return &refusal{status: http.StatusBadGateway, title: fmt.Sprintf("Nothing on port %d", port),
		message: "The sandbox is running but port is not open", port: true}
}

func onTheWay(state store.State) *refusal {
	return &refusal{status: http.StatusConflict, title: "Not yet", message: "The sandbox is " + state + "; try again in a moment"}
}

func internalRoute(path string) *refusal {
	return &refusal{status: http.StatusNotFound, title: "Not found", message: "The port is the sandbox's own", path: path}
}

// answer is a refusal's JSON.
type answer struct {
	SandboxID string `json:"sandboxId,omitempty"`
	Message   string `json:"message"`
	Port      int    `json:"port,omitempty"`
	Path      string `json:"path,omitempty"`
	Code      int    `json:"code"`
}

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// refuse answers with a refusal: a page to a browser that goes there, JSON to all else.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, t portname.Target, no *refusal) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch no.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusConflict:
		h.Set("Retry-After", "1")
	}
	a := answer{Message: no.message, Path: no.path, Code: no.status}
	if no.path == "" {
		a.SandboxID = strings.TrimPrefix(t.Sandbox, id.Prefix)
	}
	if no.port {
		a.Port = t.Port
	}
	if !navigates(r) {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(no.status)
		_ = json.NewEncoder(w).Encode(a) // nobody is left to tell
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'")
	w.WriteHeader(no.status)
	_ = page.Execute(w, map[string]any{"Title": no.title, "Message": no.message, "Answer": a, "Field": tokenQuery, "Token": no.token})
}

// navigates says whether a person is there to read a page.
func navigates(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}
