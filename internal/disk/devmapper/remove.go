package devmapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/disk/devmapper/loop"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
)

// Remove implements disk.Driver. The order is the one in which the kernel lets go: the snapshot holds its base and the
// store's loop device, the base holds the image's; the loop devices clear themselves; the file goes last, so that until
// then the disk is found by its path. The sandbox's folder goes only if nobody has anything else in it.
func (d *Driver) Remove(ctx context.Context, sandboxID string) error {
	if _, err := id.Parse(sandboxID); err != nil {
		return err
	}
	if err := removeDevices(ctx, uuidPrefix+sandboxID); err != nil {
		return fmt.Errorf("disk of %s: %w", sandboxID, err)
	}
	if err := d.bases.Prune(ctx); err != nil {
		return fmt.Errorf("disk of %s: %w", sandboxID, err)
	}
	if err := d.removeStore(ctx, sandboxID); err != nil {
		return fmt.Errorf("disk of %s: %w", sandboxID, err)
	}
	if err := failpoint.Here(ctx, pointStoreGone); err != nil {
		return err
	}
	err := os.Remove(d.folder(sandboxID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("disk of %s: %w", sandboxID, err)
	}
	return nil
}

// removeStore removes the store's file, once its loop device is gone: while somebody has that open, the file's blocks are not
// free although its name is.
func (d *Driver) removeStore(ctx context.Context, sandboxID string) error {
	path := d.storePath(sandboxID)
	if err := loop.AwaitGone(ctx, filepath.Join("/sandboxes", sandboxID, storeFile)); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeDevices removes the snapshot with this uuid, then its base.
func removeDevices(ctx context.Context, uuid string) error {
	control, err := dm.Open()
	if errors.Is(err, errs.ErrFailedPrecondition) {
		return nil // no device-mapper, no device
	}
	if err != nil {
		return err
	}
	defer control.Close()
	if err := removeDevice(ctx, control, uuid); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointDeviceGone); err != nil {
		return err
	}
	if err := removeDevice(ctx, control, uuid+baseSuffix); err != nil {
		return err
	}
	return failpoint.Here(ctx, pointBaseGone)
}

// removeDevice removes one device; that it is not there is no error. One that is open gets a moment to be closed.
func removeDevice(ctx context.Context, control *dm.Control, uuid string) error {
	deadline := time.Now().Add(busyPatience)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := control.Remove(uuid)
		if err == nil || errors.Is(err, errs.ErrNotFound) {
			return nil
		}
		if !errors.Is(err, errs.ErrFailedPrecondition) || time.Now().After(deadline) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}
