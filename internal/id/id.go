// Package id makes and parses the identifiers of sandboxes, and of what else has one.
//
// An id is a prefix, "cl-" for a sandbox, and 20 characters of base36, enough of it random that two never meet. It is safe as a host name label, a
// file name, a cgroup name, a device-mapper name and Firecracker's --id, because nothing else ever passes Parse.
//
// It is a leaf package.
package id

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Prefix starts every sandbox id.
const Prefix = "cl-"

// digits is the count of base36 digits after the prefix: 20 of them hold 103 bits.
const digits = 20

const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"

// New returns a fresh sandbox id from the system's random source.
func New() string { return NewOf(Prefix) }

// NewOf returns a fresh id with a prefix.
func NewOf(prefix string) string {
	limit := new(big.Int).Exp(big.NewInt(int64(len(alphabet))), big.NewInt(digits), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic("id: the system has no randomness: " + err.Error())
	}
	text := n.Text(len(alphabet))
	return prefix + strings.Repeat("0", digits-len(text)) + text
}

// Parse checks that s is a sandbox id and returns it. It fails with errs.ErrInvalid.
func Parse(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, Prefix)
	if !ok || len(rest) != digits {
		return "", fmt.Errorf("sandbox id %.40q: want %q and %d characters of 0-9a-z: %w", s, Prefix, digits, errs.ErrInvalid)
	}
	for _, r := range rest {
		if !strings.ContainsRune(alphabet, r) {
			return "", fmt.Errorf("sandbox id %.40q: want only 0-9a-z after %q: %w", s, Prefix, errs.ErrInvalid)
		}
	}
	return s, nil
}
