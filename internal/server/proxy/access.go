package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// tokenQuery gives a browser the token once; it gets a cookie for it.
	tokenQuery = "wrenn_access_token"
	// tokenCookie is that one.
	tokenCookie = "wrenn-access-token"
)

// tokenHeaders show the token: ours, and E2B's.
var tokenHeaders = []string{"Wrenn-Access-Token", "E2b-Traffic-Access-Token"}

// admit returns the route of a request that may go on. It is nil when the request is refused, or was answered.
func (p *Proxy) admit(w http.ResponseWriter, r *http.Request, t portname.Target) (*store.Route, *refusal) {
	if t.Port == client.Port {
		return nil, internalRoute(r.URL.Path)
	}
	route, err := p.routes.get(r.Context(), t.Sandbox)
	switch {
	case errors.Is(err, errs.ErrNotFound), err == nil && store.Ended(route.State):
		return nil, &notFound
	case err != nil:
		p.Log.Warn("the route to a sandbox is not known", "sandbox", t.Sandbox, "error", err)
		return nil, &trouble
	case route.Public:
		return &route, nil
	}
	given := shown(r)
	if given.query != "" && opens(route, given.query) {
		if p.handOver(r) {
			p.giveCookie(w, r, given.query)
			return nil, nil
		}
		return &route, nil
	}
	for _, token := range given.tokens {
		if opens(route, token) {
			return &route, nil
		}
	}
	return nil, &forbidden
}

// opens says whether a token is one of the sandbox's. All of them are compared, each in constant time.
func opens(route store.Route, token string) bool {
	hash, found := hashOf(token), 0
	for _, known := range route.Tokens {
		found |= subtle.ConstantTimeCompare(hash, known)
	}
	return found == 1
}

// hashOf is what is kept of a token.
func hashOf(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

// tokens are what a request shows.
type tokens struct {
	query  string
	tokens []string
}

// maxShown bounds how many tokens of a request are looked at: pages of other sandboxes can give a browser cookies of the same name.
const maxShown = 8

func shown(r *http.Request) tokens {
	var s tokens
	for _, name := range tokenHeaders {
		s.tokens = append(s.tokens, r.Header.Values(name)...)
	}
	if ownPage(r) {
		for _, c := range r.CookiesNamed(tokenCookie) {
			s.tokens = append(s.tokens, c.Value)
		}
	}
	if strings.Contains(r.URL.RawQuery, tokenQuery) {
		s.query = r.URL.Query().Get(tokenQuery)
	}
	s.tokens = s.tokens[:min(len(s.tokens), maxShown)]
	return s
}

// ownPage says whether a browser's cookie counts: when the request comes from a page of the port's own, or a person went there. A page
// of another sandbox is of the same site to a browser, which adds the cookie to what that page sends here.
func ownPage(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// handOver says whether the token is to go from the URL into a cookie: of the port's own name, which other hosts do not share.
func (p *Proxy) handOver(r *http.Request) bool {
	_, named, _ := p.Domain.Target(r.Host)
	return named && (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == ""
}

// giveCookie sends a browser to the same place again without the token in the URL, where histories, logs and pages would have it.
func (p *Proxy) giveCookie(w http.ResponseWriter, r *http.Request, token string) {
	to := p.Domain.Scheme + "://" + r.Host + r.URL.EscapedPath()
	if q := withoutToken(r.URL.RawQuery); q != "" {
		to += "?" + q
	}
	http.SetCookie(w, &http.Cookie{Name: tokenCookie, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: p.Domain.Scheme == "https"})
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// withoutToken is a query without the token, and otherwise as it was.
func withoutToken(query string) string {
	if !strings.Contains(query, tokenQuery) {
		return query
	}
	var keep []string
	for part := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(part, "="); name != tokenQuery {
			keep = append(keep, part)
		}
	}
	return strings.Join(keep, "&")
}

// hideTokens takes from a request's header what it showed.
func hideTokens(h http.Header) {
	for _, name := range tokenHeaders {
		delete(h, name)
	}
	cookies := h["Cookie"]
	if len(cookies) == 0 || !strings.Contains(strings.Join(cookies, ";"), tokenCookie) {
		return
	}
	var keep []string
	for part := range strings.SplitSeq(strings.Join(cookies, ";"), ";") {
		if name, _, _ := strings.Cut(strings.TrimSpace(part), "="); name != tokenCookie {
			keep = append(keep, strings.TrimSpace(part))
		}
	}
	delete(h, "Cookie")
	if len(keep) > 0 {
		h.Set("Cookie", strings.Join(keep, "; "))
	}
}
