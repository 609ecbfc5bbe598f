package proxy

import (
	"net/http"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/portname"
)

// The headers by which a request names its port where its host does not: ours, and E2B's.
var targetHeaders = [][2]string{{"Wrenn-Sandbox-Id", "Wrenn-Sandbox-Port"}, {"E2b-Sandbox-Id", "E2b-Sandbox-Port"}}

// target says which port a request means, if any.
func (p *Proxy) target(r *http.Request) (t portname.Target, ours bool, err error) {
	t, ours, err = p.Domain.Target(r.Host)
	if ours || err != nil || !p.Domain.ByHeader(r.Host) {
		return t, ours, err
	}
	for _, names := range targetHeaders {
		sandbox, port := r.Header.Values(names[0]), r.Header.Values(names[1])
		if len(sandbox) == 0 && len(port) == 0 {
			continue
		}
		if len(sandbox) != 1 || len(port) != 1 {
			return t, true, errs.Field(names[0], "a header is missing or doubled", "give "+names[0]+" and "+names[1]+", each once")
		}
		t, err = portname.Read(port[0], sandbox[0])
		return t, true, err
	}
	return t, false, nil
}
