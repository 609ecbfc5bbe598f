// Package template is the store of what sandboxes start from: a root file system image, a guest kernel, its initramfs and
// its modules, with the defaults of a machine made of them.
//
//	DIR/templates/NAME.json    a Template: which files, which defaults
//	DIR/blobs/sha256-HEX       the files, under the hash of their content
//
// A blob is complete, on disk and read-only from the moment it exists, and nothing ever changes it: machines share blobs
// while they run. A name may come to mean other blobs later; that changes no running machine.
//
// It is a leaf package but for errs, failpoint and id.
package template

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/lazyregexp"
)

// Blob names a file of a template by its content.
type Blob struct {
	// Digest is the sha256 of the content, 64 hex digits.
	Digest string `json:"digest"`
	// Size is the length in bytes; holes count.
	Size int64 `json:"size"`
}

// Template is what a sandbox starts from.
type Template struct {
	// Name is how people call it.
	Name string `json:"name"`
	// ID follows from all that the template is made of: the same content has the same id, on every host. Put sets it.
	ID string `json:"id"`
	// Rootfs is an ext4 image, the first drive of the guest. Size is the least disk a sandbox can have.
	Rootfs Blob `json:"rootfs"`
	// Kernel is an uncompressed ELF kernel.
	Kernel Blob `json:"kernel"`
	// Initramfs loads the first modules and mounts the drives.
	Initramfs Blob `json:"initramfs"`
	// Modules is an ext4 image of lib/modules, the second drive of the guest, read-only.
	Modules Blob `json:"modules"`
	// KernelVersion is what `uname -r` says in the guest.
	KernelVersion string `json:"kernelVersion"`
	// VCPUs and MemoryMiB are a sandbox's when it asks for nothing else.
	VCPUs     int `json:"vcpus"`
	MemoryMiB int `json:"memoryMiB"`
	// Recipe says what the root file system was made from.
	Recipe string `json:"recipe"`
	// PackagesDigest is the sha256, in hex, of the list of packages and versions in the root file system.
	PackagesDigest string `json:"packagesDigest"`
}

// Blobs are the template's files by the name of their role.
func (t Template) Blobs() map[string]Blob {
	return map[string]Blob{"rootfs": t.Rootfs, "kernel": t.Kernel, "initramfs": t.Initramfs, "modules": t.Modules}
}

var (
	namePattern   = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	digestPattern = lazyregexp.New(`^[0-9a-f]{64}$`)
)

// CheckName returns nil for the name that a template may have, and else an error for the person who gave it.
func CheckName(name string) error {
	if namePattern().MatchString(name) {
		return nil
	}
	return errs.Field("template", fmt.Sprintf("%.80q is not a template's name", name),
		"use at most 63 of a-z, 0-9, dot, dash and underscore, and start with a letter or digit")
}

// identity is the template's id: of everything but its name.
func (t Template) identity() string {
	t.Name, t.ID = "", ""
	text, err := json.Marshal(t)
	if err != nil { // a struct of strings and numbers always has a text
		return ""
	}
	sum := sha256.Sum256(text)
	return id.Template + hex.EncodeToString(sum[:10])
}

// check tells whether a template is complete. It fails with errs.ErrInvalid.
func (t Template) check() error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	for role, b := range t.Blobs() {
		if !digestPattern().MatchString(b.Digest) || b.Size <= 0 {
			return fmt.Errorf("template %s: %s has digest %.80q and size %d: %w", t.Name, role, b.Digest, b.Size, errs.ErrInvalid)
		}
	}
	if t.VCPUs < 1 || t.MemoryMiB < 1 {
		return fmt.Errorf("template %s: %d vcpus and %d MiB: %w", t.Name, t.VCPUs, t.MemoryMiB, errs.ErrInvalid)
	}
	return nil
}

// decode reads a template's JSON. Fields that it does not know are an error: they may say what this version can't do.
func decode(text []byte) (Template, error) {
	var t Template
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return Template{}, fmt.Errorf("%w: %w", err, errs.ErrCorrupt)
	}
	if err := t.check(); err != nil {
		return Template{}, fmt.Errorf("%w: %w", err, errs.ErrCorrupt)
	}
	if t.ID != t.identity() {
		return Template{}, fmt.Errorf("template %s: id %.40q does not fit its content: %w", t.Name, t.ID, errs.ErrCorrupt)
	}
	return t, nil
}
