package devmapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/sparse"
)

// The names of the steps; see failpoint.
var (
	pointFlushed = failpoint.New("disk.freeze-flushed")
	pointFreeze  = failpoint.New("disk.freeze-file")
	pointCopied  = failpoint.New("disk.freeze-copied")
	pointFrozen  = failpoint.New("disk.freeze-synced")
)

// FreezeFailpoints are the names of the steps of Freeze, in their order.
func FreezeFailpoints() []string {
	return failpoint.Names(pointFlushed, pointFreeze, pointCopied, pointFrozen)
}

var _ disk.Freezer = (*Driver)(nil)

// Freeze implements disk.Freezer. The frozen store is a copy of the disk's: dm-snapshot commits what it keeps before it says
// that a write is done, so once the device has nothing left to write the store is whole.
func (d *Driver) Freeze(ctx context.Context, sandboxID, dst string) (disk.Frozen, error) {
	if _, err := id.Parse(sandboxID); err != nil {
		return disk.Frozen{}, err
	}
	frozen, err := d.freeze(ctx, sandboxID, dst)
	if err != nil {
		return disk.Frozen{}, fmt.Errorf("freeze the disk of %s: %w", sandboxID, err)
	}
	return frozen, nil
}

func (d *Driver) freeze(ctx context.Context, sandboxID, dst string) (frozen disk.Frozen, err error) {
	if err := context.Cause(ctx); err != nil {
		return disk.Frozen{}, err
	}
	if frozen.DeviceBytes, err = flushDevice(sandboxID); err != nil {
		return disk.Frozen{}, err
	}
	if err := failpoint.Here(ctx, pointFlushed); err != nil {
		return disk.Frozen{}, err
	}
	src, err := d.openStore(d.storePath(sandboxID), frozen.DeviceBytes)
	if err != nil {
		return disk.Frozen{}, err
	}
	defer src.Close()
	err = writeFile(ctx, dst, pointFrozen, func(f *os.File) error {
		if err := failpoint.Here(ctx, pointFreeze); err != nil {
			return err
		}
		shared, err := d.copyInto(ctx, f, src)
		if err != nil {
			return err
		}
		frozen.Shared = shared
		return failpoint.Here(ctx, pointCopied)
	}, func(f *os.File) (err error) {
		frozen.SizeBytes = d.storeBytes(frozen.DeviceBytes)
		frozen.HostBytes, err = sparse.Used(f.Name())
		return err
	})
	return frozen, err
}

// flushDevice brings what was written to a disk's device into its store, and returns the device's size. ErrNotFound when
// there is no such disk, ErrResourceExhausted when it lost a write, maybe just now.
func flushDevice(sandboxID string) (size int64, err error) {
	control, err := dm.Open()
	if errors.Is(err, errs.ErrFailedPrecondition) {
		return 0, fmt.Errorf("no such disk: %w: %w", err, errs.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	defer control.Close()
	if err := whole(control, sandboxID); err != nil {
		return 0, err
	}
	info, err := control.Info(uuidPrefix + sandboxID)
	if err != nil {
		return 0, err
	}
	path, err := node(info.Dev)
	if err != nil {
		return 0, err
	}
	size, err = flushNode(path)
	if lost := whole(control, sandboxID); lost != nil {
		return 0, errors.Join(lost, err)
	}
	return size, err
}

// flushNode writes a device's page cache, which all who have it open share, to the device and its own cache to its store.
// It opens the node for reading, which is enough: udev looks at a device again whenever somebody who might have written
// closes it, and would have it open when it is removed next.
func flushNode(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = f.Sync()
	}
	return size, errors.Join(err, f.Close())
}

// whole is ErrResourceExhausted for a disk that lost a write.
func whole(control *dm.Control, sandboxID string) error {
	u, err := status(control, sandboxID)
	if err == nil && u.Failed {
		err = errLost
	}
	return err
}
