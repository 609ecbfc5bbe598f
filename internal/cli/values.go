package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// maxSizeBytes bounds what a size flag takes, so that no unit overflows.
const maxSizeBytes = 1 << 50

// parseSize reads a size such as 512M, 2G or 2GiB and returns it in bytes; a bare number counts MiB. Empty is 0.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bad := errs.Field(flag, fmt.Sprintf("%q is no size", s), "give a number and a unit, such as 512M or 2G")
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 20
	for unit, bits := range map[string]int{"K": 10, "M": 20, "G": 30, "T": 40} {
		if rest, ok := strings.CutSuffix(text, unit); ok {
			text, shift = rest, bits
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, bad
	}
	if n > maxSizeBytes>>shift {
		return 0, errs.Field(flag, fmt.Sprintf("%q is too large", s), "give at most 1024T")
	}
	return n << shift, nil
}

// parseDuration reads a duration such as 30s or 5m. Empty is 0, no limit.
func parseDuration(flag, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errs.Field(flag, fmt.Sprintf("%q is no duration above zero", s), "give a number and a unit, such as 90s or 5m")
	}
	return d, nil
}

// parseEnv reads K=V pairs; the last of a name wins.
func parseEnv(flag string, pairs []string) (map[string]string, error) {
	env := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" || strings.ContainsRune(p, 0) {
			return nil, errs.Field(flag, fmt.Sprintf("%q is no variable", p), "give NAME=VALUE")
		}
		env[k] = v
	}
	return env, nil
}
