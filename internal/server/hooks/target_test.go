package hooks

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/webhook"
)

// names is a name server of this machine: each name has the addresses that a function gives it.
func names(t *testing.T, of func(name string) []string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(buf[:n]); err != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			for _, s := range of(strings.TrimSuffix(m.Questions[0].Name.String(), ".")) {
				a := netip.MustParseAddr(s)
				h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: m.Questions[0].Type, Class: dnsmessage.ClassINET}
				switch {
				case a.Is4() && h.Type == dnsmessage.TypeA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
				case a.Is6() && h.Type == dnsmessage.TypeAAAA:
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
				}
			}
			if raw, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(raw, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestCheck(t *testing.T) {
	resolver := names(t, func(name string) []string {
		switch name {
		case "public.test":
			return []string{"93.184.216.34", "2606:2800:220:1::1"}
		case "half.test":
			return []string{"93.184.216.34", "10.0.0.1"}
		case "mapped.test":
			return []string{"::ffff:127.0.0.1"}
		}
		return nil
	})
	public, private := Targets{Resolver: resolver}, Targets{Private: true}
	for _, good := range []string{"https://public.test/", "https://public.test:8443/a?b=c", "https://93.184.216.34",
		"https://[2606:2800:220:1::1]:443/"} {
		if err := public.Check(t.Context(), good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, good := range []string{"http://127.0.0.1:9000/", "https://receiver.internal/"} {
		if err := private.Check(t.Context(), good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	bad := []string{"", "public.test", "/a", "https://", "https:///a", "https://:443/", "http://public.test/", "ftp://public.test", "file:///etc/passwd",
		"https:public.test",
		"https://u:p@public.test/", "https://public.test/#a", "https://public.test/" + strings.Repeat("a",
			maxURL), "https://nobody.test/", "https://half.test/",
		"https://mapped.test/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::7f00:1]/",
		"https://169.254.169.254/latest",
		"https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://0/", "https://[fe80::1%25lo]/", "https://100.64.0.1/", "https://224.0.0.1/"}
	for _, raw := range bad {
		var field *errs.FieldError
		if err := public.Check(t.Context(), raw); !errors.As(err, &field) || field.Field != "url" || field.Fix == "" {
			t.Errorf("%q: %v", raw, err)
		}
	}
	for _, raw := range []string{"", "ftp://127.0.0.1/", "http://u@127.0.0.1/"} {
		if err := private.Check(t.Context(), raw); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// TestANameThatMovesIsNotFollowed: it has a public address when the webhook is made, and this machine's when the message is sent.
func TestANameThatMovesIsNotFollowed(t *testing.T) {
	w := newWorld(t)
	r := newReceiver(t, nil)
	var asked atomic.Bool
	address := func(string) []string {
		if asked.Load() {
			return []string{"127.0.0.1"}
		}
		return []string{"93.184.216.34"}
	}
	h := New(w.Store, Targets{Resolver: names(t, address)}, slog.New(slog.DiscardHandler))
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	url := "https://rebind.test:" + port + "/"
	if err := h.Targets.Check(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	asked.Store(true)
	s := &sending{Hooks: h}
	for _, target := range []string{url, strings.Replace(url, "https", "http", 1), "http://127.0.0.1:" + port, "http://[::ffff:127.0.0.1]:" + port,
		"http://localhost:" + port} {
		_, err := s.post(t.Context(), store.Due{ID: id.NewOf(id.Delivery), Url: target, Secret: webhook.NewSecret(), Body: "{}"})
		if !errors.Is(err, errPrivate) || err.Error() != errPrivate.Error() {
			t.Errorf("%s: %v", target, err)
		}
	}
	if n := len(r.all()); n != 0 {
		t.Errorf("%d came", n)
	}
}

// TestProxiesAreNotAsked that the environment names: it would be they that connect.
func TestProxiesAreNotAsked(t *testing.T) {
	transport, ok := Targets{}.client().Transport.(*http.Transport)
	if !ok || transport.Proxy != nil {
		t.Error("a proxy is asked")
	}
}

// TestWhatOwnersAreTold has nothing in it of this server's own network.
func TestWhatOwnersAreTold(t *testing.T) {
	w := newWorld(t)
	h := New(w.Store, Targets{Private: true, Resolver: names(t, func(string) []string { return nil })}, slog.New(slog.DiscardHandler))
	s := &sending{Hooks: h}
	cut := newReceiver(t, func(http.ResponseWriter, *http.Request, int) { panic(http.ErrAbortHandler) })
	for target, want := range map[string]string{"https://nobody.test/": "no address", "http://127.0.0.1:1/": "refused", cut.URL: "EOF",
		strings.Replace(cut.URL, "http", "https", 1): "HTTP response to HTTPS client"} {
		_, err := s.post(t.Context(), store.Due{ID: id.NewOf(id.Delivery), Url: target, Secret: webhook.NewSecret(), Body: "{}"})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: %v", target, err)
		}
	}
}
