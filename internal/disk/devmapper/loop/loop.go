// Package loop makes loop devices: block devices whose content is a file.
//
// Every device it makes clears itself when the last one who has it open lets go (the kernel's AUTOCLEAR). The kernel thus
// keeps the count of who needs the device, and it can't be wrong: a program that is killed at any line drops what it held,
// and a device that a device-mapper table uses stays for as long as the table does. Nothing has to be undone after a crash,
// and nothing is ever detached by us, so nobody's device can be detached by mistake.
//
// The name kept in a device (lo_file_name) starts with Prefix, which tells ours from foreign ones.
package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// Prefix starts the name of every loop device of ours.
const Prefix = "wrenn-"

// maxNameBytes is what the kernel keeps of a name.
const maxNameBytes = 63

const controlPath = "/dev/loop-control"

// Another process may take a free device between our asking for it and our taking it. How often we ask again, and how long
// we wait before that.
const (
	attempts = 100
	pause    = 5 * time.Millisecond
)

// Spec is how a file becomes a device.
type Spec struct {
	// Name is kept in the device, after Prefix; what is over 63 bytes together is cut.
	Name string
	// ReadOnly refuses writes.
	ReadOnly bool
	// Direct reads and writes the file past the page cache, where its file system can.
	Direct bool
}

// Device is a loop device held open. It lives at least until Close.
type Device struct {
	f *os.File
	// Number is N of /dev/loopN.
	Number int
	// Dev is the device number, as in stat's rdev.
	Dev uint64
}

// Status is what the kernel says of a loop device.
type Status struct {
	Dev, Inode uint64 // of the file behind it
	Name       string
	ReadOnly   bool
	AutoClear  bool
	Direct     bool
	Whole      bool // it shows the whole file, not a part of it
}

// Attach makes a loop device of a file. The file may be closed afterwards. A file opened read-only makes the device read-only
// too. Errors: ErrFailedPrecondition when the kernel has no loop devices, ErrResourceExhausted when none is left.
func Attach(ctx context.Context, file *os.File, spec Spec) (*Device, error) {
	control, err := os.OpenFile(controlPath, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("no loop devices (%w); load the module loop: %w", err, errs.ErrFailedPrecondition)
	case err != nil:
		return nil, err
	}
	defer control.Close()
	var last error
	for range attempts {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		d, err := attachOnce(control, file, spec)
		switch {
		case err == nil:
			return d, nil
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENXIO), errors.Is(err, fs.ErrNotExist):
			last = err // somebody else was faster
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE):
			return nil, fmt.Errorf("loop device of %s: %w: %w", file.Name(), err, errs.ErrResourceExhausted)
		default:
			return nil, fmt.Errorf("loop device of %s: %w", file.Name(), err)
		}
		sleep(ctx, pause)
	}
	return nil, fmt.Errorf("no loop device could be taken in %d attempts (is devtmpfs mounted on /dev?): %w: %w",
		attempts, last, errs.ErrResourceExhausted)
}

// attachOnce takes the device that is free now.
func attachOnce(control, file *os.File, spec Spec) (*Device, error) {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	d, err := open(number, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if spec.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if spec.Direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:maxNameBytes], Prefix+spec.Name)
	if err := unix.IoctlLoopConfigure(d.fd(), &config); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Open opens a loop device that is there, and keeps it from clearing itself. ErrNotFound when there is none of that number.
func Open(number int) (*Device, error) {
	d, err := open(number, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: %w", err, errs.ErrNotFound)
	}
	return d, err
}

func open(number, flags int) (*Device, error) {
	f, err := os.OpenFile("/dev/loop"+strconv.Itoa(number), flags, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Device{f: f, Number: number, Dev: st.Rdev}, nil
}

// Status asks the kernel what is behind the device. ErrNotFound when nothing is.
func (d *Device) Status() (Status, error) {
	info, err := unix.IoctlLoopGetStatus64(d.fd())
	if errors.Is(err, unix.ENXIO) {
		return Status{}, fmt.Errorf("%s has no file: %w", d.f.Name(), errs.ErrNotFound)
	}
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", d.f.Name(), err)
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return Status{
		Dev: info.Device, Inode: info.Inode, Name: string(name),
		ReadOnly:  info.Flags&unix.LO_FLAGS_READ_ONLY != 0,
		AutoClear: info.Flags&unix.LO_FLAGS_AUTOCLEAR != 0,
		Direct:    info.Flags&unix.LO_FLAGS_DIRECT_IO != 0,
		Whole:     info.Offset == 0 && info.Sizelimit == 0,
	}, nil
}

// Table is how a device-mapper table names the device: "major:minor".
func (d *Device) Table() string {
	return fmt.Sprintf("%d:%d", unix.Major(d.Dev), unix.Minor(d.Dev))
}

// Close lets go of the device. If nobody else holds it, it is gone.
func (d *Device) Close() error { return d.f.Close() }

func (d *Device) fd() int { return int(d.f.Fd()) }

// sleep waits, but not beyond the context's end.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
