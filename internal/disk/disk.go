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
// # Freezing a disk
//
// A driver that is a Freezer keeps what a disk was at one moment, and starts others from it:
//
//	…                                               // the machine is paused, or gone
//	f, err := driver.Freeze(ctx, id, dir+"/disk")   // what the disk differs in from its base
//	…                                               // the machine goes on, or the disk is removed
//	d, err := driver.Create(ctx, disk.Spec{ID: other, Base: base, SizeBytes: f.DeviceBytes, Store: dir + "/disk"})
//
// The frozen store is a file without ties to the host that it comes from: with the base and the size it is the whole disk.
// Nothing ever writes to it, and any number of disks start from it, each with a copy of its own.
//
// disk/devmapper implements the interface with dm-snapshot; disk/disktest is the suite that every implementation passes.
package disk

import "context"

// MaxSizeBytes is the largest disk. The store of its changes, too, is then within what ext4 allows of a file.
const MaxSizeBytes = 8 << 40

// Spec is what a disk is made from.
type Spec struct {
	// ID is the sandbox id.
	ID string
	// Base is the read-only image.
	Base Base
	// SizeBytes is the size of the device; 0 means the base's own size. Less than the base's size, and more than MaxSizeBytes, is
	// ErrInvalid. It is rounded up to a whole 4096-byte block. The device reads as zeros beyond the base.
	SizeBytes int64
	// Store is the path of a frozen store that the disk starts from; "" means none. A disk of the same base and size as the
	// frozen one reads what that one read. The base is not checked: that it is the same is the caller's to know. The file is
	// only read, and only by Create.
	Store string
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
	// field; ErrNotFound when the base or the frozen store is not there; ErrCorrupt when the frozen store is none of this
	// driver's, is not whole, is marked as one that lost a write, or belongs to a disk of another size; ErrAlreadyExists when
	// the id has a disk; ErrResourceExhausted when the host has no room, loop device or device-mapper minor left. What is
	// ErrInvalid, ErrNotFound or ErrCorrupt is refused before anything is made.
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

// Frozen describes a frozen store.
type Frozen struct {
	// SizeBytes is the length of the file, most of which may be holes.
	SizeBytes int64
	// DeviceBytes is the size of the disk, for Spec.SizeBytes.
	DeviceBytes int64
	// HostBytes is what the file takes on the host's file system, in blocks really used. Blocks that it shares count in full.
	HostBytes int64
	// Shared is set when the file shares its blocks with the disk's store: freezing took no time and no room.
	Shared bool
}

// Freezer is a Driver whose disks can be frozen, and that starts disks from Spec.Store. It is an optional capability, found
// by type assertion.
type Freezer interface {
	Driver
	// Freeze makes the file dst a frozen store of the disk as it is now. All that was written to the device before the call,
	// synced or not, is in it. Nobody may write to the device meanwhile: the machine is paused, or gone. The disk itself does
	// not change, and can be written to, frozen again or removed as soon as Freeze returns.
	//
	// The file is durable when Freeze returns; its name is once the caller has synced the folder. When Freeze fails dst does
	// not exist; a process that is killed meanwhile may leave a part of it, which is the caller's to remove. Errors:
	// ErrNotFound when there is no such disk, or no folder for dst; ErrAlreadyExists when dst is there, which is left alone;
	// ErrResourceExhausted when the disk lost a write, or the file system of dst has no room.
	Freeze(ctx context.Context, id, dst string) (Frozen, error)
	// Flatten makes the file dst a raw image of a disk with this base, frozen store and size: what its device would read. No
	// device is made. Zeros are holes. The store is not trusted: ErrCorrupt when it says what this driver would not have
	// written. What is said of dst in Freeze holds here too; the other errors are those of Create.
	Flatten(ctx context.Context, base Base, store string, sizeBytes int64, dst string) error
}
