package wheel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "w")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if err := verify(file, abc); err != nil {
		t.Error(err)
	}
	if err := verify(file, strings.Repeat("0", 64)); err == nil {
		t.Error("a wrong digest was accepted")
	}
}
