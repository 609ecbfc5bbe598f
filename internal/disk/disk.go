// Package disk is the domain of a sandbox's disk: a writable device over a base image that many sandboxes share.
//
// # Life of a disk
//
//	d, err := driver.Create(ctx, disk.Spec{ID: id, Base: base, SizeBytes: 10 << 30})
//	…                                // the guest writes to d.Device; the base never changes
//	u, err := driver.Usage(ctx, id)  // how full the store of its changes is
//	err = driver.Remove(ctx, id)     // the device and its changes are gone
//
// A driver makes its host objects under names that follow from the id, so Remove and List need no record but the id. The
// disk must not be in use when it is removed: the machine goes first.
//
// disk/devmapper implements the interface with dm-snapshot; disk/disktest is the suite that every implementation passes.
package disk

import "context"

// Spec is what a disk is made from.
type Spec struct {
	// ID is the sandbox id.
	ID string
	// Base is the read-only image.
	Base Base
	// SizeBytes is the size of the device; 0 means the base's own size. Less than the base's size is ErrInvalid. It is rounded
	// up to a whole 4096-byte block. The device reads as zeros beyond the base.
	SizeBytes int64
}

// Base is an immutable image that many disks share.
type Base struct {
	// Digest is the image's sha256 in hex. It names the shared objects that serve the image.
	Digest string
	// Path is the image's file.
	Path string
}

// Disk is a writable block device.
type Disk struct {
	// Device is the path of the device node.
	Device string
	// SizeBytes is the size of the device.
	SizeBytes int64
}

// Usage is how full a disk's store of changes is.
type Usage struct {
	// UsedBytes and CapacityBytes are of the store, its own metadata included.
	UsedBytes, CapacityBytes int64
	// HostBytes is what the store takes on the host's file system, in blocks really used.
	HostBytes int64
	// Failed is set when the device lost a write for want of room: it answers every read with an error from then on, and
	// nothing on it may be trusted.
	Failed bool
}

// Driver makes disks. Its methods may be called from several goroutines and several processes, at most one at a time for
// one id.
type Driver interface {
	// Create makes the disk. When it fails it has removed what it made. Errors: ErrInvalid for a Spec that can't be, with the
	// field; ErrNotFound when the base is not there; ErrAlreadyExists when the id has a disk; ErrResourceExhausted when the
	// host has no room, loop device or device-mapper minor left.
	Create(ctx context.Context, spec Spec) (Disk, error)
	// Usage reports on a disk. ErrNotFound when there is none.
	Usage(ctx context.Context, id string) (Usage, error)
	// Remove deletes the disk and its changes, whole or half made. It is idempotent. ErrFailedPrecondition when the device is
	// still in use.
	Remove(ctx context.Context, id string) error
	// List returns the ids that have any object of this driver.
	List(ctx context.Context) ([]string, error)
}

// Watcher is a Driver that tells of a failing disk when it happens. It is an optional capability, found by type assertion.
type Watcher interface {
	Driver
	// Watch waits for the end of a disk. It returns ErrResourceExhausted as soon as the disk lost a write, which Usage then
	// calls Failed; ErrNotFound when there is no such disk, or no longer; and the context's cause when that ends first.
	Watch(ctx context.Context, id string) error
}
