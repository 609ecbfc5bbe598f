// Package portname is the names that sandboxes' ports have on the network: <port>-<the id without its prefix>.<domain>.
//
//	d, err := portname.Parse("localhost", 8080)
//	url := d.URL("cl-0123456789abcdefghij", 8000)          // http://8000-0123456789abcdefghij.localhost:8080
//	t, below, err := d.Target("8000-0123….localhost:8080")
//
// A name is taken as it is given out and not otherwise, so that a port has one origin for a browser. It is a leaf package.
package portname

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// Domain is what the names end in, and how it is reached from outside.
type Domain struct {
	Scheme string // http or https
	Name   string
	Port   string // empty is the scheme's own
}

// Parse reads a domain as a person gives it: a name, which is reached by HTTP at the port of the listener, or a URL of a proxy with TLS before it.
func Parse(s string, listenPort int) (Domain, error) {
	if !strings.Contains(s, "://") {
		s = fmt.Sprintf("http://%s:%d", s, listenPort)
	}
	u, err := url.Parse(s)
	bad := errs.Field("--domain", fmt.Sprintf("%.200q is none", s), "give a name such as localhost, or a URL such as https://sandboxes.example.com")
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return Domain{}, bad
	}
	d := Domain{Scheme: u.Scheme, Name: strings.ToLower(u.Hostname()), Port: u.Port()}
	if _, err := netip.ParseAddr(d.Name); err == nil || !isName(d.Name) {
		return Domain{}, bad
	}
	if d.Port == (map[string]string{"http": "80", "https": "443"})[d.Scheme] {
		d.Port = ""
	}
	return d, nil
}

// maxName leaves room for a port's label before the domain's name: DNS has at most 253 characters.
const maxName = 253 - len("65535-0123456789abcdefghij.")

// isName says whether a text is a host name.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// Target is a port of a sandbox.
type Target struct {
	Sandbox string // its id
	Port    int
}

// Host is the target's name, as a browser shows it.
func (d Domain) Host(t Target) string {
	host := fmt.Sprintf("%d-%s.%s", t.Port, strings.TrimPrefix(t.Sandbox, id.Prefix), d.Name)
	if d.Port != "" {
		host += ":" + d.Port
	}
	return host
}

// URL is where a sandbox's port is.
func (d Domain) URL(sandbox string, port int) string {
	return d.Scheme + "://" + d.Host(Target{sandbox, port}) + "/"
}

// Target says which port the Host of a request names. Below is false for a host that is not below the domain, and for the two names below it that
// are the server's own, api and sandbox. ErrInvalid for one below it that is no port's.
func (d Domain) Target(host string) (t Target, below bool, err error) {
	name := strings.ToLower(withoutPort(host))
	label, ok := strings.CutSuffix(name, "."+d.Name)
	if !ok || label == "api" || label == Router {
		return t, false, nil
	}
	port, sandbox, _ := strings.Cut(label, "-")
	t, err = Read(port, sandbox)
	if err == nil && strings.HasPrefix(sandbox, id.Prefix) {
		err = errs.Field("host", fmt.Sprintf("%.80q names no port of a sandbox", host), "give its id without "+id.Prefix)
	}
	return t, true, err
}

// Router is the name below the domain at which headers say which port is meant.
const Router = "sandbox"

// ByHeader says whether a request for a host may name its port by headers: an address, localhost, or the router's name. Below the name of a
// sandbox's port it may not, so that no page there reaches another one by them.
func (d Domain) ByHeader(host string) bool {
	name := strings.ToLower(withoutPort(host))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name == "localhost" || name == Router+"."+d.Name
}

// Read is the target of a port and an id, with or without its prefix. ErrInvalid for what is not exactly that.
func Read(port, sandbox string) (Target, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port != strconv.FormatUint(n, 10) {
		return Target{}, errs.Field("host", fmt.Sprintf("%.20q is no port", port), "give <port>-<id>.<domain>, the port from 1 to 65535")
	}
	full, err := id.Parse(id.Prefix + strings.TrimPrefix(sandbox, id.Prefix))
	if err != nil {
		return Target{}, errs.Field("host", fmt.Sprintf("%.40q is no sandbox", sandbox), "give <port>-<id>.<domain>, the id without "+id.Prefix)
	}
	return Target{full, int(n)}, nil
}

// withoutPort is a request's host without the port.
func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}
