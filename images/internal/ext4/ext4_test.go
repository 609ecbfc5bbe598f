package ext4

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArgs(t *testing.T) {
	spec := Spec{Label: "wrenn-base", Size: 1 << 30, Epoch: time.Unix(1, 0)}
	got := spec.args("/out")
	if last := got[len(got)-2:]; !slices.Equal(last, []string{"/out", "1048576k"}) {
		t.Errorf("args end in %q", last)
	}
	if slices.Contains(got, "-O") {
		t.Error("an image that is written to lacks features")
	}
	spec.Sealed = true
	if got := strings.Join(spec.args("/out"), " "); !strings.Contains(got, "-O ^has_journal") {
		t.Errorf("a sealed image has a journal: %s", got)
	}
}

func TestUUID(t *testing.T) {
	one, two := Spec{Label: "a"}.uuid(), Spec{Label: "b"}.uuid()
	if one == two || one != (Spec{Label: "a", Size: 5}).uuid() {
		t.Errorf("%s, %s", one, two)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(one) {
		t.Errorf("%s is no UUID", one)
	}
}

func TestMakeNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Make(t.Context(), t.TempDir(), path, Spec{Size: 1 << 20}, func(io.Writer) error { return nil })
	if text, rerr := os.ReadFile(path); !errors.Is(err, os.ErrExist) || rerr != nil || string(text) != "mine" {
		t.Errorf("Make = %v, file %q, %v", err, text, rerr)
	}
}

func TestTail(t *testing.T) {
	var out tail
	for range 3 {
		if n, err := out.Write(make([]byte, maxTail/2)); n != maxTail/2 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if _, err := out.Write([]byte("end")); err != nil || len(out.text) != maxTail || !strings.HasSuffix(string(out.text), "end") {
		t.Errorf("%d bytes, %v", len(out.text), err)
	}
}
