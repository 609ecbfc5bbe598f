// Package bzimage takes the kernel proper out of a distribution's bzImage. Firecracker boots the ELF file, which the bzImage
// carries compressed behind its own boot code.
package bzimage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	"wrenn.dev/wrenn/internal/errs"
)

// Offsets into the setup header, of the x86 boot protocol 2.08 and later.
const (
	offSetupSects     = 0x1f1
	offMagic          = 0x202
	offKernelVersion  = 0x20e
	offPayload        = 0x248
	offPayloadLength  = 0x24c
	headerEnd         = 0x250
	sector            = 512
	defaultSetupSects = 4 // what 0 stands for
)

// maxELF bounds the decompressed kernel.
const maxELF = 512 << 20

var (
	magicHeader = []byte("HdrS")
	magicZstd   = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicELF    = []byte("\x7fELF")
)

// Kernel is what a bzImage holds.
type Kernel struct {
	// ELF is the uncompressed kernel.
	ELF []byte
	// Version is its release, as `uname -r` prints it.
	Version string
}

// Parse takes a bzImage apart. It fails with errs.ErrInvalid for anything but a whole bzImage with a zstd payload.
func Parse(image []byte) (Kernel, error) {
	bad := func(format string, args ...any) (Kernel, error) {
		return Kernel{}, fmt.Errorf("bzImage: %s: %w", fmt.Sprintf(format, args...), errs.ErrInvalid)
	}
	if len(image) < headerEnd || !bytes.Equal(image[offMagic:offMagic+4], magicHeader) {
		return bad("no setup header")
	}
	sects := int(image[offSetupSects])
	if sects == 0 {
		sects = defaultSetupSects
	}
	start := uint64(sects+1)*sector + uint64(binary.LittleEndian.Uint32(image[offPayload:]))
	length := uint64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if length < 8 || start+length > uint64(len(image)) {
		return bad("payload of %d bytes at %d in a file of %d", length, start, len(image))
	}
	// The last four bytes are the uncompressed size, for boot code whose compression does not tell it.
	payload := image[start : start+length-4]
	size := binary.LittleEndian.Uint32(image[start+length-4:])
	if !bytes.HasPrefix(payload, magicZstd) {
		return bad("payload starts with % x, and only zstd is understood", payload[:4])
	}
	if size > maxELF {
		return bad("payload of %d bytes decompressed", size)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxELF), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return Kernel{}, err
	}
	defer dec.Close()
	elf, err := dec.DecodeAll(payload, make([]byte, 0, size))
	switch {
	case err != nil:
		return bad("payload: %v", err)
	case len(elf) != int(size):
		return bad("payload has %d bytes, its trailer says %d", len(elf), size)
	case !bytes.HasPrefix(elf, magicELF):
		return bad("payload is no ELF file")
	}
	return Kernel{ELF: elf, Version: version(image)}, nil
}

// version is the first word of the header's version text, empty when there is none.
func version(image []byte) string {
	at := int(binary.LittleEndian.Uint16(image[offKernelVersion:])) + 0x200
	if at == 0x200 || at >= len(image) {
		return ""
	}
	text, _, _ := bytes.Cut(image[at:min(at+256, len(image))], []byte{0})
	word, _, _ := strings.Cut(string(text), " ")
	return word
}
