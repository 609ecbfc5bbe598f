package portname

import (
	"errors"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	digits  = "0123456789abcdefghij"
	sandbox = "cl-" + digits
)

func parse(t *testing.T, s string) Domain {
	t.Helper()
	d, err := Parse(s, 8080)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDomains(t *testing.T) {
	for given, url := range map[string]string{
		"localhost":                          "http://8000-" + digits + ".localhost:8080/",
		"Sandboxes.Example.com":              "http://8000-" + digits + ".sandboxes.example.com:8080/",
		"https://sandboxes.example.com":      "https://8000-" + digits + ".sandboxes.example.com/",
		"https://sandboxes.example.com:443/": "https://8000-" + digits + ".sandboxes.example.com/",
		"https://sandboxes.example.com:8443": "https://8000-" + digits + ".sandboxes.example.com:8443/",
	} {
		d := parse(t, given)
		if got := d.URL(sandbox, 8000); got != url {
			t.Errorf("%s: %s, want %s", given, got, url)
		}
		if got, below, err := d.Target(d.Host(Target{sandbox, 8000})); got != (Target{sandbox, 8000}) || !below || err != nil {
			t.Errorf("%s: its own name is %v %v %v", given, got, below, err)
		}
	}
	for _, bad := range []string{"", "-x", "a..b", "a b", "127.0.0.1", "http://[::1]", "ftp://x", "https://u@x", "https://x/y", "https://x?y", "x_y",
		strings.Repeat("a", 64), strings.Repeat("a.", 120) + "a"} {
		if d, err := Parse(bad, 8080); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q is %v, %v", bad, d, err)
		}
	}
}

func TestHosts(t *testing.T) {
	d := parse(t, "localhost")
	for _, host := range []string{"localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:80", "::1", "api.localhost", "sandbox.localhost:8080", "example.com",
		"8000-" + digits + ".example.com", "xlocalhost", "", "."} {
		if got, below, err := d.Target(host); below || err != nil {
			t.Errorf("%q is below: %v %v", host, got, err)
		}
	}
	for _, host := range []string{"www.localhost", ".localhost", "8000.localhost", "8000-.localhost", "-" + digits + ".localhost", "0-" + digits + ".localhost",
		"65536-" + digits + ".localhost", "08000-" + digits + ".localhost", "+80-" + digits + ".localhost", "80-" + digits + "0.localhost",
		"80-" + digits[1:] + ".localhost", "80-" + sandbox + ".localhost", "80-" + digits + "-local.localhost", "x.80-" + digits + ".localhost",
		"80-" + digits + ".x.localhost", "18446744073709551696-" + digits + ".localhost"} {
		if got, below, err := d.Target(host); !below || !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q is %v, %v %v", host, got, below, err)
		}
	}
	for host, want := range map[string]bool{"127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "localhost:1": true, "sandbox.localhost": true,
		"api.localhost": false, "example.com": false, "8000-" + digits + ".localhost": false, "x.sandbox.localhost": false} {
		if got := d.ByHeader(host); got != want {
			t.Errorf("headers at %q: %v", host, got)
		}
	}
}

// FuzzTarget: whatever is taken as a port's name is exactly what would be given out for it.
func FuzzTarget(f *testing.F) {
	d, err := Parse("localhost", 8080)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"8000-" + digits + ".localhost:8080", "8000-" + digits + ".localhost", "0-x.localhost", "[::1]:1", "a:b:c", "ſ.localhost"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, below, err := d.Target(host)
		if err != nil || !below {
			return
		}
		name := strings.ToLower(withoutPort(host))
		if own := withoutPort(d.Host(got)); name != own {
			t.Fatalf("%q is taken as %v, whose name is %q", host, got, own)
		}
	})
}
