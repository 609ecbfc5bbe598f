package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Client speaks to one server with one API key. It may be used by several goroutines; it keeps connections, so one for the whole program is best.
type Client struct {
	// Sandboxes are the team's.
	Sandboxes *Sandboxes
	// Snapshots are frozen sandboxes that others start from.
	Snapshots *Snapshots
	// Templates are what the first sandbox starts from.
	Templates *Templates
	// Keys are the team's API keys.
	Keys *Keys
	// Webhooks are the team's.
	Webhooks *Webhooks
	// Teams and Hosts are the installation's.
	Teams *Teams
	Hosts *Hosts

	rest *rest.Client
	send *sender
	base *url.URL
}

// Option changes how a client works.
type Option func(*config)

type config struct {
	key, agent string
	retries    int
	http       *http.Client
}

// WithAPIKey has every request carry an API key.
func WithAPIKey(key string) Option { return func(c *config) { c.key = key } }

// WithHTTPClient takes connections, proxies and certificates from h, and its time limits, which then bound streams, too. The client
// follows no redirects all the same: a key is for the server that it was given for. Without it there is one like http.DefaultClient.
func WithHTTPClient(h *http.Client) Option { return func(c *config) { c.http = h } }

// DefaultRetries is how often a request is sent again unless WithRetries says otherwise.
const DefaultRetries = 3

// WithRetries says how often a request is sent again at most; 0 is never.
func WithRetries(n int) Option { return func(c *config) { c.retries = n } }

// WithUserAgent names the program in the server's log and in those of proxies.
func WithUserAgent(name string) Option { return func(c *config) { c.agent = name } }

// New returns a client of the server at an address such as https://wrenn.example.org; what is below a path there is asked for below it. It
// sends nothing. An address that can't be is ErrInvalid.
func New(address string, options ...Option) (*Client, error) {
	base, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, invalid("url", err.Error(), "give one such as https://wrenn.example.org")
	case base.Scheme != "http" && base.Scheme != "https", base.Host == "":
		return nil, invalid("url", "it has no http or https and host", "give one such as https://wrenn.example.org")
	case base.User != nil, base.RawQuery != "", base.Fragment != "":
		return nil, invalid("url", "it has a user, a query or a fragment", "leave them out; the key is an option of its own")
	}
	c := config{agent: "wrenn-go", retries: DefaultRetries}
	for _, option := range options {
		option(&c)
	}
	if strings.ContainsFunc(c.key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, invalid("key", "it has characters that no key has", "give it as it was told")
	}
	made := &Client{send: newSender(c), base: base}
	if made.rest, err = rest.NewClient(strings.TrimSuffix(base.String(), "/"), rest.WithHTTPClient(made.send)); err != nil {
		return nil, invalid("url", err.Error(), "give one such as https://wrenn.example.org")
	}
	made.Sandboxes, made.Snapshots, made.Templates, made.Keys = &Sandboxes{made}, &Snapshots{made}, &Templates{made}, &Keys{made}
	made.Webhooks, made.Teams, made.Hosts = &Webhooks{made}, &Teams{made}, &Hosts{made}
	return made, nil
}

// Close closes the connections that nothing uses. The client may be used again.
func (c *Client) Close() { c.send.http.CloseIdleConnections() }

// String names the server, and not the key.
func (c *Client) String() string { return "wrenn client of " + c.base.String() }

// GoString is the same.
func (c *Client) GoString() string { return c.String() }

// Ready returns nil when the server can work: its database and its host answer. It needs no key.
func (c *Client) Ready(ctx context.Context) error {
	resp, err := c.rest.GetReadiness(ctx)
	_, err = decode[rest.Health](resp, err)
	return err
}
