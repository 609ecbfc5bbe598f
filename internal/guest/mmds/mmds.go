// Package mmds reads the document that the host gives a microVM through Firecracker's metadata service, version 2.
//
// Only who holds a session token may read: the token is asked for with a PUT, and the document then with a GET. The
// service answers at a link-local address on the guest's network interface, which comes up some time after the first
// instruction, so Fetch keeps asking until its context ends.
//
//	doc, err := (&mmds.Client{}).Fetch(ctx)
//
// It is a leaf package, used by wrenn-init and envd inside the guest; the host uses its key names.
package mmds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// The keys of the document, at its top level. Every value is a string.
const (
	KeySandboxID  = "WRENN_SANDBOX_ID"
	KeyTemplateID = "WRENN_TEMPLATE_ID"
	KeyHostname   = "WRENN_HOSTNAME"
	KeyEnvdToken  = "WRENN_ENVD_TOKEN" // the host removes it once envd has it
	KeyDNS        = "WRENN_DNS"        // name servers' addresses, separated by commas
	// KeyStart is a random id of this start, chosen by the host. Another one than before says that the machine was frozen and this
	// is another machine; the same one, that it was only held for a moment.
	KeyStart = "WRENN_START"
)

// Address is where the service answers; a guest needs a route to it over the interface that the service is attached to.
const Address = "169.254.169.254"

// MaxDocument is the most that is read of a document, in bytes; Firecracker's own limit is 51,200.
const MaxDocument = 64 << 10

const (
	maxToken   = 1 << 10
	tokenTTL   = "60" // seconds; a token serves one Fetch
	firstPause = 5 * time.Millisecond
	lastPause  = 500 * time.Millisecond
	// A lost SYN is sent again after a second, so an attempt is given more than that, and each next one twice as much:
	// an emulated machine may need many times what a real one does.
	firstPatience = 2 * time.Second
	lastPatience  = 32 * time.Second
)

// Document is what the host says to a guest. A key that is not there is an empty string.
type Document struct {
	SandboxID  string
	TemplateID string
	Hostname   string
	EnvdToken  string
	DNS        string
	Start      string
}

// Client fetches the document. The zero value asks the real service. It is safe for use by several goroutines.
type Client struct {
	// BaseURL replaces "http://169.254.169.254" in tests; no slash at its end.
	BaseURL string
}

// Fetch returns the document as soon as the service gives it, and tries again after any error until ctx ends; then it
// fails with the last error and the context's.
func (c *Client) Fetch(ctx context.Context) (Document, error) {
	pause, patience := firstPause, firstPatience
	for {
		doc, err := c.try(ctx, patience)
		if err == nil {
			return doc, nil
		}
		select {
		case <-ctx.Done():
			return Document{}, errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
		pause, patience = min(2*pause, lastPause), min(2*patience, lastPatience)
	}
}

// try is one attempt: a token, then the document, over one connection.
func (c *Client) try(ctx context.Context, patience time.Duration) (Document, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return Document{}, fmt.Errorf("metadata service: %w", err)
	}
	defer conn.close()
	token, err := conn.do("PUT /latest/api/token", "Content-Length: 0\r\nX-metadata-token-ttl-seconds: "+tokenTTL, maxToken)
	if err != nil {
		return Document{}, fmt.Errorf("metadata token: %w", err)
	}
	header := "Accept: application/json\r\nX-metadata-token: " + strings.TrimSpace(string(token))
	body, err := conn.do("GET /", header, MaxDocument)
	if err != nil {
		return Document{}, fmt.Errorf("metadata document: %w", err)
	}
	defer clear(body) // the token may be in it
	return Parse(body)
}

// Parse reads a document. Unknown keys are left alone; a known key whose value is no string is errs.ErrInvalid.
func Parse(body []byte) (Document, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return Document{}, fmt.Errorf("metadata document: %w: %w", err, errs.ErrInvalid)
	}
	var doc Document
	for key, field := range map[string]*string{
		KeySandboxID: &doc.SandboxID, KeyTemplateID: &doc.TemplateID, KeyHostname: &doc.Hostname,
		KeyEnvdToken: &doc.EnvdToken, KeyDNS: &doc.DNS, KeyStart: &doc.Start,
	} {
		value, ok := raw[key]
		if !ok {
			continue
		}
		// The value is left out of the error: it may be the token.
		if err := json.Unmarshal(value, field); err != nil {
			return Document{}, fmt.Errorf("metadata key %s is not a string: %w", key, errs.ErrInvalid)
		}
	}
	return doc, nil
}
