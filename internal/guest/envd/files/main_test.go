package files

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sum is the digest of a text as signatures have it.
func sum(text string) string {
	d := sha256.Sum256([]byte(text))
	return strings.TrimRight(base64.StdEncoding.EncodeToString(d[:]), "=")
}
