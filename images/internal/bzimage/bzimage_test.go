package bzimage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"wrenn.dev/wrenn/internal/errs"
)

const setupSects = 2

// image makes a bzImage around a payload as boot tools would.
func image(t testing.TB, elf []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := enc.EncodeAll(elf, nil)
	payload = binary.LittleEndian.AppendUint32(payload, uint32(len(elf)))

	b := make([]byte, (setupSects+1)*sector)
	b[offSetupSects] = setupSects
	copy(b[offMagic:], magicHeader)
	binary.LittleEndian.PutUint16(b[offKernelVersion:], 0x100)
	copy(b[0x300:], "6.12.1-cloud (builder@host) #1 SMP\x00")
	const boot = 100
	binary.LittleEndian.PutUint32(b[offPayload:], boot)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	b = append(b, make([]byte, boot)...)
	b = append(b, payload...)
	return append(b, "the rest of the boot code"...)
}

func TestParse(t *testing.T) {
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel"), 1000)...)
	k, err := Parse(image(t, elf))
	if err != nil || !bytes.Equal(k.ELF, elf) || k.Version != "6.12.1-cloud" {
		t.Fatalf("Parse = %d bytes, version %q, %v", len(k.ELF), k.Version, err)
	}
}

func TestParseRefuses(t *testing.T) {
	elf := append([]byte("\x7fELF"), make([]byte, 100)...)
	payloadAt := (setupSects+1)*sector + 100
	for name, tc := range map[string]struct {
		spoil func(b []byte) []byte
		says  string
	}{
		"empty":         {func(b []byte) []byte { return nil }, "no setup header"},
		"no magic":      {func(b []byte) []byte { b[offMagic] = 'x'; return b }, "no setup header"},
		"cut":           {func(b []byte) []byte { return b[:payloadAt+10] }, "payload of"},
		"payload tiny":  {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[offPayloadLength:], 7); return b }, "payload of 7"},
		"payload far":   {func(b []byte) []byte { binary.LittleEndian.PutUint32(b[offPayload:], 1<<31); return b }, "payload of"},
		"xz":            {func(b []byte) []byte { copy(b[payloadAt:], "\xfd7zX"); return b }, "fd 37 7a 58"},
		"broken zstd":   {func(b []byte) []byte { b[payloadAt+6] ^= 0xff; return b }, "payload"},
		"wrong trailer": {func(b []byte) []byte { b[len(b)-len("the rest of the boot code")-4]++; return b }, "trailer says"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(tc.spoil(image(t, elf)))
			if !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Parse = %v, want %q", err, tc.says)
			}
		})
	}
	if _, err := Parse(image(t, []byte("no elf at all"))); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("no ELF: %v", err)
	}
}
