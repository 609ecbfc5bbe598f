package debian

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// program puts a shell script on the PATH under a name, with nothing else on it but the system's own folders.
func program(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func TestSourcesFromEnv(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  []string // empty: refused
	}{
		{"http://mirror.example/debian/", []string{
			"deb http://mirror.example/debian trixie main",
			"deb http://mirror.example/debian trixie-updates main",
			"deb http://mirror.example/debian-security trixie-security main",
		}},
		{"http://a.example/d  http://b.example/s", []string{
			"deb http://a.example/d trixie main",
			"deb http://a.example/d trixie-updates main",
			"deb http://b.example/s trixie-security main",
		}},
		{"not-a-url", nil},
		{"http://a/ http://b/ http://c/", nil},
		{"  ", nil},
	} {
		t.Setenv(MirrorEnv, tt.value)
		got, err := Sources()
		if tt.want == nil {
			if !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), MirrorEnv) {
				t.Errorf("%q: err = %v", tt.value, err)
			}
		} else if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v", tt.value, got, err)
		}
	}
}

func TestFromTargets(t *testing.T) {
	for _, tt := range []struct {
		name, targets  string
		main, security string // empty: refused
	}{
		{
			name: "an ordinary machine",
			targets: "Debian|http://m.example/debian-security/|bookworm-security\nDebian|http://m.example/debian/|bookworm-updates\n" +
				"Debian|http://m.example/debian/|bookworm\nOther|https://other.example/|bookworm\n",
			main: "http://m.example/debian", security: "http://m.example/debian-security",
		},
		{
			name:    "no security archive",
			targets: "Debian|http://m.example/debian/|trixie\n",
			main:    "http://m.example/debian", security: "http://m.example/debian-security",
		},
		{name: "lists never fetched", targets: "$(ORIGIN)|http://m.example/debian/|trixie\n"},
		{name: "another distribution", targets: "Ubuntu|http://u.example/ubuntu/|noble\n"},
		{name: "nothing"},
		{name: "not what was asked for", targets: "Debian\nDebian|x\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fromTargets([]byte(tt.targets))
			if tt.main == "" {
				if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "apt-get update") {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err != nil || !slices.Equal(got, lines(tt.main, tt.security)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestSourcesAsksApt(t *testing.T) {
	t.Setenv(MirrorEnv, "")
	program(t, "apt-get", `echo "Debian|http://m.example/debian/|bookworm"`)
	got, err := Sources()
	if err != nil || !slices.Contains(got, "deb http://m.example/debian trixie main") {
		t.Errorf("%q, %v", got, err)
	}
	program(t, "apt-get", "exit 1")
	if _, err := Sources(); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("err = %v", err)
	}
}

func TestProxiesFromConfig(t *testing.T) {
	got := fromConfig([]byte(`Acquire "";
Acquire::http "";
Acquire::https::Proxy "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::http::Timeout "30";
`))
	if want := []string{`Acquire::http::Proxy "http://proxy.example:3128";`}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
