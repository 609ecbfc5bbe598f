package blockmap

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	idPrefix   = "bd-"
	idDigits   = 20
	idLength   = len(idPrefix) + idDigits
	idAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
)

// NewBuildID returns a fresh id of a build from the system's random source: "bd-" and 20 characters of base36.
func NewBuildID() string {
	limit := new(big.Int).Exp(big.NewInt(int64(len(idAlphabet))), big.NewInt(idDigits), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic("blockmap: the system has no randomness: " + err.Error())
	}
	text := n.Text(len(idAlphabet))
	return idPrefix + strings.Repeat("0", idDigits-len(text)) + text
}

// CheckBuildID returns nil for an id of a build. Only what passes becomes a part of a path. It fails with errs.ErrInvalid.
func CheckBuildID(s string) error {
	rest, ok := strings.CutPrefix(s, idPrefix)
	if !ok || len(rest) != idDigits || strings.Trim(rest, idAlphabet) != "" {
		return fmt.Errorf("build id %.40q: want %q and %d characters of 0-9a-z: %w", s, idPrefix, idDigits, errs.ErrInvalid)
	}
	return nil
}
