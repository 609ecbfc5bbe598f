package cli

import (
	"errors"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"": 0, "256": 256 << 20, "256M": 256 << 20, "256m": 256 << 20, "256MiB": 256 << 20, "1G": 1 << 30, "4K": 4096, "1024T": 1 << 50,
	} {
		if got, err := parseSize("--memory", in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"-1", "0", "1.5G", "G", "1X", "1GG", "99999999999999999999", "2000T", "9223372036854775807T"} {
		var fe *errs.FieldError
		if _, err := parseSize("--memory", in); !errors.As(err, &fe) || fe.Field != "--memory" || fe.Fix == "" {
			t.Errorf("parseSize(%q) = %v, want an error that names field and fix", in, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	if d, err := parseDuration("--timeout", "90s"); err != nil || d != 90*time.Second {
		t.Errorf("90s = %v, %v", d, err)
	}
	for _, in := range []string{"90", "-1s", "0s", "soon"} {
		if _, err := parseDuration("--timeout", in); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("parseDuration(%q) = %v", in, err)
		}
	}
}

func TestParseEnv(t *testing.T) {
	env, err := parseEnv("--env", []string{"A=1", "B=", "A=x=y"})
	if err != nil || len(env) != 2 || env["A"] != "x=y" {
		t.Fatal(env, err)
	}
	for _, in := range []string{"A", "=1", "A=\x00"} {
		if _, err := parseEnv("--env", []string{in}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("parseEnv(%q) = %v", in, err)
		}
	}
}
