// Package id makes and parses the identifiers of sandboxes, and of what else has one.
//
// An id is a prefix, "cl-" for a sandbox, and 20 characters of base36, enough of it random that two never meet. It is safe as a host name label, a
// file name, a cgroup name, a device-mapper name and Firecracker's --id, because nothing else ever passes Parse: every id that comes in, by path,
// host name or RPC, does.
//
// It is a leaf package.
package id

import (
	"crypto/rand"
	"crypto/sha256"
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

// limit is above every number that the digits can tell.
var limit = new(big.Int).Exp(big.NewInt(int64(len(alphabet))), big.NewInt(digits), nil)

// NewOf returns a fresh id with a prefix.
func NewOf(prefix string) string {
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic("id: the system has no randomness: " + err.Error())
	}
	return of(prefix, n)
}

func of(prefix string, n *big.Int) string {
	text := n.Text(len(alphabet))
	return prefix + strings.Repeat("0", digits-len(text)) + text
}

// Parse checks that s is a sandbox id and returns it. It fails with errs.ErrInvalid.
func Parse(s string) (string, error) { return ParseOf(Prefix, s) }

// ParseOf is Parse of an id with another prefix.
func ParseOf(prefix, s string) (string, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || len(rest) != digits {
		return "", fmt.Errorf("id %.40q: want %q and %d characters of 0-9a-z: %w", s, prefix, digits, errs.ErrInvalid)
	}
	for _, r := range rest {
		if !strings.ContainsRune(alphabet, r) {
			return "", fmt.Errorf("id %.40q: want only 0-9a-z after %q: %w", s, prefix, errs.ErrInvalid)
		}
	}
	return s, nil
}

// Pattern is the regular expression that matches what ParseOf takes: documents of interfaces say so with it, and a test of each holds it
// against this one.
func Pattern(prefix string) string { return fmt.Sprintf("^%s[0-9a-z]{%d}$", prefix, digits) }

// As is the id with another prefix that an id gives its digits to: what an operation makes is found by the operation's name.
func As(prefix, of string) string {
	_, rest, _ := strings.Cut(of, "-")
	return prefix + rest
}

// Derived is the nth id with a prefix that follows from a text, the same whenever it is asked for.
func Derived(prefix, from string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", from, n))
	return of(prefix, new(big.Int).Mod(new(big.Int).SetBytes(sum[:]), limit))
}
