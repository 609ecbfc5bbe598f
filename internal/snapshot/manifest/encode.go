package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"wrenn.dev/wrenn/internal/errs"
)

// MaxBytes bounds a manifest: the chunks of 1 TiB take less.
const MaxBytes = 256 << 20

const (
	trailerStart = `{"sha256":"`
	trailerEnd   = "\"}\n"
	trailerBytes = len(trailerStart) + 2*sha256.Size + len(trailerEnd)
)

// Encode returns the document's only encoding. It fails with errs.ErrInvalid for a document that Decode would refuse.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("manifest of %.40q: %w: %w", m.Build, err, errs.ErrInvalid)
	}
	doc, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", m.Build, err)
	}
	doc = append(doc, '\n')
	if len(doc)+trailerBytes > MaxBytes {
		return nil, fmt.Errorf("manifest of %s has %d bytes: %w", m.Build, len(doc), errs.ErrInvalid)
	}
	return append(doc, trailer(doc)...), nil
}

func trailer(doc []byte) string { return trailerStart + Digest(doc) + trailerEnd }

// Digest is the sha256 of data in hex: of a whole encoded manifest it is what a Need names.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Decode is the inverse of Encode, and takes nothing that Encode would not write. It fails with errs.ErrCorrupt, and with
// errs.ErrFailedPrecondition for a whole document of a version that this program doesn't know.
func Decode(data []byte) (*Manifest, error) {
	if len(data) < trailerBytes || len(data) > MaxBytes {
		return nil, fmt.Errorf("manifest: %d bytes: %w", len(data), errs.ErrCorrupt)
	}
	doc, last := data[:len(data)-trailerBytes], data[len(data)-trailerBytes:]
	if want := trailer(doc); string(last) != want {
		return nil, fmt.Errorf("manifest: checksum line is %q, want %q: %w", last, want, errs.ErrCorrupt)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(doc, &v); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", err, errs.ErrCorrupt)
	}
	if v.Version != Version {
		return nil, fmt.Errorf("manifest of version %d; this program reads %d: %w", v.Version, Version, errs.ErrFailedPrecondition)
	}
	m, err := decode(doc)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", err, errs.ErrCorrupt)
	}
	return m, nil
}

func decode(doc []byte) (*Manifest, error) {
	m := new(Manifest)
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	// Names in other letters, names that come twice, space, other forms of a number: JSON has many texts for one document.
	again, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(append(again, '\n'), doc) {
		return nil, errors.New("the text is not in the form that this program writes")
	}
	return m, nil
}

// Read decodes a manifest from the whole of r, and returns its digest too.
func Read(r io.Reader) (m *Manifest, digest string, err error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, "", fmt.Errorf("read a manifest: %w", err)
	}
	m, err = Decode(data)
	return m, Digest(data), err
}
