package identity

import (
	"errors"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

// fail is for a test in which nothing may come so far that it could warn.
func fail(t *testing.T) func(error) {
	return func(err error) { t.Errorf("it warned: %v", err) }
}

func TestResolvConf(t *testing.T) {
	for _, tc := range []struct {
		servers, want string
		err           error
	}{
		{"1.1.1.1", "nameserver 1.1.1.1\n", nil},
		{"9.9.9.9, 2620:fe::fe", "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n", nil},
		{"dns.example", "", errs.ErrInvalid},
		{"1.1.1.1,", "", errs.ErrInvalid},
		{"1.1.1.1\noptions x", "", errs.ErrInvalid},
	} {
		got, err := resolvConf(tc.servers)
		if string(got) != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("resolvConf(%q) = %q, %v", tc.servers, got, err)
		}
	}
}

func TestHasServer(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "# nameserver 1.1.1.1\n": false, "search x\n": false, "nameserver\n": false,
		"search x\n\tnameserver 10.0.0.1": true, "nameserver 1.1.1.1\n": true,
	} {
		if got := hasServer([]byte(text)); got != want {
			t.Errorf("hasServer(%q) = %v", text, got)
		}
	}
}

func TestHosts(t *testing.T) {
	const local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, tc := range []struct{ old, want string }{
		{"", local + "127.0.1.1 box\n"},
		{"127.0.0.1\tlocalhost\n127.0.1.1 old", "127.0.0.1\tlocalhost\n127.0.1.1 box\n"},
		{"10.0.0.1 db", "10.0.0.1 db\n" + local + "127.0.1.1 box\n"},
		{local + "127.0.1.1 box\n", local + "127.0.1.1 box\n"},
	} {
		if got := string(hosts([]byte(tc.old), "box")); got != tc.want {
			t.Errorf("hosts(%q) = %q, want %q", tc.old, got, tc.want)
		}
	}
}

func TestApplyRefusesBeforeItChanges(t *testing.T) {
	for _, name := range []string{"-a", "a b", "a\n", strings.Repeat("a", 65), "ä", "."} {
		if err := Apply(mmds.Document{Hostname: name}, fail(t)); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("Apply(%q) = %v", name, err)
		}
	}
}

func TestApplyRefusesServersBeforeItChanges(t *testing.T) {
	if err := Apply(mmds.Document{Hostname: "fine", DNS: "none"}, fail(t)); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("Apply = %v", err)
	}
}
