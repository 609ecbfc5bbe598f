// Package dm speaks to the kernel's device-mapper: the ioctls of /dev/mapper/control, interface version 4.
//
// A device is made in three steps, as the kernel wants it: Create gives it a name, a uuid and a device number; Load hands it
// a table; Resume makes the table live. Every later call names the device by its uuid, never by its name: the uuid says
// whose it is, and a foreign device that happens to have one of our names is never touched.
//
// The package knows nothing of snapshots or sandboxes. It is the only place that talks to the device-mapper.
package dm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// controlPath is the device-mapper's control node.
const controlPath = "/dev/mapper/control"

// SectorBytes is the unit of every length in a table, whatever the device's own block size is.
const SectorBytes = 512

// What an answer may grow to. A host with more devices than fit is not one of ours.
const (
	firstAnswerBytes = 16 << 10
	maxAnswerBytes   = 16 << 20
)

// udevFlags tell udev, by the cookie that a change event carries, to leave the device alone: no probing for file systems and
// no links. What is on the device was written by a guest, and the host must not parse it. The bits are libdevmapper's: no
// subsystem rules, no disk rules, no other rules, and "these flags are the device's own".
const udevFlags = (0x02 | 0x04 | 0x08 | 0x40) << 16

// Control is an open control node. It is safe for use by several goroutines.
type Control struct{ f *os.File }

// Open opens the control node. It fails with ErrFailedPrecondition when the kernel has no device-mapper loaded.
func Open() (*Control, error) {
	f, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("no device-mapper (%w); load the module dm_mod: %w", err, errs.ErrFailedPrecondition)
	case err != nil:
		return nil, fmt.Errorf("device-mapper: %w", err)
	}
	return &Control{f}, nil
}

// Close closes the control node.
func (c *Control) Close() error { return c.f.Close() }

// Device is an entry of List.
type Device struct {
	Name string
	Dev  uint64 // the device number, as in stat's rdev
}

// Info is the state of one device.
type Info struct {
	Name, UUID string
	Dev        uint64 // the device number, as in stat's rdev
	Opens      int    // how many times it is open, by programs and by other devices
	Live       bool   // it has a table in force
	ReadOnly   bool
}

// Target is one line of a table: Sectors from sector Start are served by the target type Type with Params.
type Target struct {
	Start, Sectors uint64
	Type, Params   string
}

// Version is the version of a target type that the kernel has loaded.
type Version struct {
	Type    string
	Version [3]uint32
}

// List returns every device-mapper device of the host.
func (c *Control) List() ([]Device, error) {
	_, answer, err := c.call(unix.DM_LIST_DEVICES, request{})
	if err != nil {
		return nil, fmt.Errorf("list device-mapper devices: %w", err)
	}
	return decodeDevices(answer)
}

// TargetVersion returns the version of one target type, whose module the kernel loads if it has to. ErrNotFound when the
// kernel has no such target.
func (c *Control) TargetVersion(target string) (Version, error) {
	_, answer, err := c.call(unix.DM_GET_TARGET_VERSION, request{name: target})
	if errors.Is(err, unix.EINVAL) {
		return Version{}, fmt.Errorf("device-mapper target %s: %w: %w", target, err, errs.ErrNotFound)
	}
	if err != nil {
		return Version{}, fmt.Errorf("device-mapper target %s: %w", target, err)
	}
	list, err := decodeVersions(answer)
	if err != nil {
		return Version{}, err
	}
	if len(list) == 0 {
		return Version{}, fmt.Errorf("device-mapper target %s: %w", target, errs.ErrNotFound)
	}
	return list[0], nil
}

// Create makes a device that has no table yet. ErrAlreadyExists when the name or the uuid is taken, ErrResourceExhausted when
// the host has no device number or memory left.
func (c *Control) Create(name, uuid string) (Info, error) {
	h, _, err := c.call(unix.DM_DEV_CREATE, request{name: name, uuid: uuid})
	if err != nil {
		return Info{}, wrap("create", name, err, errs.ErrAlreadyExists)
	}
	return h.info(), nil
}

// Load gives the device a table, which is not in force before Resume. A table of a read-only device opens what it maps to
// read-only.
func (c *Control) Load(uuid string, readOnly bool, table ...Target) error {
	r := request{uuid: uuid, table: table}
	if readOnly {
		r.flags = unix.DM_READONLY_FLAG
	}
	_, _, err := c.call(unix.DM_TABLE_LOAD, r)
	return wrap("load the table of", uuid, err, errs.ErrFailedPrecondition)
}

// Resume puts the loaded table in force.
func (c *Control) Resume(uuid string) error {
	// The kernel has one call for both ways; without the suspend flag it resumes.
	_, _, err := c.call(unix.DM_DEV_SUSPEND, request{uuid: uuid, event: udevFlags})
	return wrap("resume", uuid, err, errs.ErrFailedPrecondition)
}

// Info returns the state of the device with this uuid. ErrNotFound when there is none.
func (c *Control) Info(uuid string) (Info, error) {
	h, _, err := c.call(unix.DM_DEV_STATUS, request{uuid: uuid})
	return h.info(), wrap("look at", uuid, err, errs.ErrFailedPrecondition)
}

// InfoByName is Info for a device of which only the name is known, to learn its uuid.
func (c *Control) InfoByName(name string) (Info, error) {
	h, _, err := c.call(unix.DM_DEV_STATUS, request{name: name})
	return h.info(), wrap("look at", name, err, errs.ErrFailedPrecondition)
}

// Status returns the table in force with each target's own status in Params. It does not wait for writes under way.
// ErrNotFound when there is no such device.
func (c *Control) Status(uuid string) ([]Target, error) {
	h, answer, err := c.call(unix.DM_TABLE_STATUS, request{uuid: uuid, flags: unix.DM_NOFLUSH_FLAG})
	if err != nil {
		return nil, wrap("look at", uuid, err, errs.ErrFailedPrecondition)
	}
	return decodeTargets(answer, h.targets)
}

// Remove deletes the device. ErrNotFound when there is none, ErrFailedPrecondition while it is open.
func (c *Control) Remove(uuid string) error {
	_, _, err := c.call(unix.DM_DEV_REMOVE, request{uuid: uuid, event: udevFlags})
	return wrap("remove", uuid, err, errs.ErrFailedPrecondition)
}

// Wait calls check at once and then after every event of any device (a target that fails, a device that goes), until check
// says that it is done or fails, or the context ends. A Control serves one Wait at a time.
func (c *Control) Wait(ctx context.Context, check func() (done bool, err error)) error {
	conn, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var failed error
	err = conn.Read(func(fd uintptr) (done bool) {
		// First ask for events from now on, then look: what happens in between is not missed.
		buf, err := request{}.encode(0)
		if err == nil {
			err = ioctl(fd, unix.DM_DEV_ARM_POLL, buf)
		}
		if err == nil {
			done, err = check()
		}
		failed = err
		return done || err != nil
	})
	switch {
	case failed != nil:
		return failed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	}
	return err
}

// call makes one ioctl and returns the header and the payload of the answer. An answer that did not fit is asked for again
// with more room.
func (c *Control) call(cmd uint, r request) (header, []byte, error) {
	for room := firstAnswerBytes; ; room *= 4 {
		buf, err := r.encode(room)
		if err != nil {
			return header{}, nil, err
		}
		conn, err := c.f.SyscallConn()
		if err != nil {
			return header{}, nil, err
		}
		var ioErr error
		if err := conn.Control(func(fd uintptr) { ioErr = ioctl(fd, cmd, buf) }); err != nil {
			return header{}, nil, err
		}
		if ioErr != nil {
			return header{}, nil, ioErr
		}
		h, answer, err := decode(buf)
		if err != nil {
			return header{}, nil, err
		}
		if h.flags&unix.DM_BUFFER_FULL_FLAG == 0 {
			return h, answer, nil
		}
		if room >= maxAnswerBytes {
			return header{}, nil, fmt.Errorf("the answer is over %d bytes: %w", maxAnswerBytes, errs.ErrResourceExhausted)
		}
	}
}

// wrap gives a failed call its kind. busy is what EBUSY means for it.
func wrap(what, device string, err, busy error) error {
	if err == nil {
		return nil
	}
	kind := error(nil)
	switch {
	case errors.Is(err, unix.ENXIO):
		kind = errs.ErrNotFound
	case errors.Is(err, unix.EBUSY):
		kind = busy
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EMFILE):
		kind = errs.ErrResourceExhausted
	default:
		return fmt.Errorf("%s device-mapper device %s: %w", what, device, err)
	}
	return fmt.Errorf("%s device-mapper device %s: %w: %w", what, device, err, kind)
}
