// Package devmapper makes disks with the kernel's dm-snapshot.
//
//	/dev/dm-N  "wrenn-<id>"         snapshot: what the guest sees; its changes go to the store
//	├── "wrenn-<id>-base"           only for a disk larger than its image: the image, then zeros
//	│   └── /dev/loopB              the image, read-only; one for all sandboxes of the host (loop.Registry)
//	└── /dev/loopC                  the store: the sparse file sandboxes/<id>/cow
//
// # What a crash leaves
//
// A process may be killed at any line. Loop devices clear themselves when nobody has them open, so of a disk half made
// there is at most the file, then a device-mapper device with or without a table. Both are found by the id: the file by its
// path, the device by its uuid, which is of ours alone and never another's. Remove takes both away in the order in which
// the kernel lets go of them. Nothing is recorded anywhere else.
//
// # Freezing
//
// A frozen disk is a copy of its store, which is all that the kernel keeps of it: a device whose table names a store that has
// a header goes on where that store ends. Where the file system can, the copy shares the store's blocks. The package
// exception reads a store without the kernel.
//
// # Room
//
// The store's file is as large as a rewrite of the whole device needs, so the store itself never overflows; but it is
// sparse, and the host's file system may be full before. Then the kernel invalidates the snapshot: every read and write of
// the device fails from then on, and Usage says Failed. No block ever reads back as something that was not written. For the
// sake of the disks that run, no other is started when the file system is nearly full, and none is frozen, restored or
// flattened by a copy that would fill it.
//
// The store is written past the page cache where the file system can: the device has a page cache of its own, which is
// charged to the machine that uses it. The image is read through the page cache, which all sandboxes share.
package devmapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/disk/devmapper/loop"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// The names of a disk's device-mapper devices: the prefix and the id. The base's has a suffix.
const (
	namePrefix = "wrenn-"
	uuidPrefix = "WRENN-"
	baseSuffix = "-base"
)

// storeFile is the name of the store in the sandbox's folder.
const storeFile = "cow"

// DefaultReserveBytes is what the host's file system must have free for a new disk.
const DefaultReserveBytes = 256 << 20

// busyPatience is how long Remove waits for a device that is open. The machine is gone by then; what may have it open for a
// moment is the host's own udev, which looks at every new device.
const busyPatience = 5 * time.Second

// Config says where a Driver keeps its files.
type Config struct {
	// StateDir is the folder of all state. Stores are sandboxes/<id>/cow in it; a sandbox's folder is made if it is not there,
	// and removed if nothing else is in it. The registry of loop devices is loops/ in it.
	StateDir string
	// ReserveBytes is what must be free on the state folder's file system for a disk to be made, and what a copy of a store
	// leaves free where it goes; 0 means DefaultReserveBytes, less than 0 that nothing must be free.
	ReserveBytes int64

	// storeLimit makes stores smaller than they should be, for a test of a store that overflows.
	storeLimit int64
}

// Driver is a disk.Driver.
type Driver struct {
	cfg   Config
	bases *loop.Registry
}

var _ disk.Watcher = (*Driver)(nil)

// New returns a driver. It touches nothing before it is used.
func New(cfg Config) *Driver {
	if cfg.ReserveBytes == 0 {
		cfg.ReserveBytes = DefaultReserveBytes
	}
	return &Driver{cfg: cfg, bases: loop.NewRegistry(filepath.Join(cfg.StateDir, "loops"))}
}

// Usage implements disk.Driver.
func (d *Driver) Usage(_ context.Context, sandboxID string) (disk.Usage, error) {
	if _, err := id.Parse(sandboxID); err != nil {
		return disk.Usage{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(d.storePath(sandboxID), &st); errors.Is(err, fs.ErrNotExist) {
		return disk.Usage{}, fmt.Errorf("disk of %s: %w", sandboxID, errs.ErrNotFound)
	} else if err != nil {
		return disk.Usage{}, fmt.Errorf("store of %s: %w", sandboxID, err)
	}
	control, err := dm.Open()
	if err != nil {
		return disk.Usage{}, err
	}
	defer control.Close()
	u, err := status(control, sandboxID)
	if err != nil {
		return disk.Usage{}, fmt.Errorf("disk of %s: %w", sandboxID, err)
	}
	if u.Failed { // the kernel tells no figures any more
		u.UsedBytes, u.CapacityBytes = st.Size, st.Size
	}
	u.HostBytes = st.Blocks * 512
	return u, nil
}

// Watch implements disk.Watcher. It costs nothing while nothing happens: the kernel tells of every device that changes.
func (d *Driver) Watch(ctx context.Context, sandboxID string) error {
	if _, err := id.Parse(sandboxID); err != nil {
		return err
	}
	control, err := dm.Open()
	if err != nil {
		return err
	}
	defer control.Close()
	err = control.Wait(ctx, func() (bool, error) {
		u, err := status(control, sandboxID)
		return u.Failed, err
	})
	if err == nil {
		err = errLost
	}
	return fmt.Errorf("disk of %s: %w", sandboxID, err)
}

// errLost is what has become of a disk whose Usage says Failed.
var errLost = fmt.Errorf("it lost a write, because the host's file system or the store is full, or failed: %w", errs.ErrResourceExhausted)

// status asks the kernel how full the store is. ErrNotFound when there is no device, or one that is half made.
func status(control *dm.Control, sandboxID string) (disk.Usage, error) {
	table, err := control.Status(uuidPrefix + sandboxID)
	if err != nil {
		return disk.Usage{}, err
	}
	if len(table) != 1 || table[0].Type != "snapshot" {
		return disk.Usage{}, fmt.Errorf("it is half made: %w", errs.ErrNotFound)
	}
	return parseStatus(table[0].Params)
}

// List implements disk.Driver.
func (d *Driver) List(context.Context) ([]string, error) {
	ids, err := listDevices()
	if err != nil {
		return nil, err
	}
	stores, err := filepath.Glob(filepath.Join(escapeGlob(d.cfg.StateDir), "sandboxes", id.Prefix+"*", storeFile))
	if err != nil {
		return nil, err
	}
	for _, path := range stores {
		if sandboxID, err := id.Parse(filepath.Base(filepath.Dir(path))); err == nil {
			ids = append(ids, sandboxID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// listDevices returns the ids of the host's device-mapper devices that are ours. A host without device-mapper has none.
func listDevices() ([]string, error) {
	control, err := dm.Open()
	if errors.Is(err, errs.ErrFailedPrecondition) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer control.Close()
	devices, err := control.List()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, dev := range devices {
		if !strings.HasPrefix(dev.Name, namePrefix) {
			continue
		}
		info, err := control.InfoByName(dev.Name)
		if errors.Is(err, errs.ErrNotFound) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		if sandboxID, ok := owner(info.UUID); ok {
			ids = append(ids, sandboxID)
		}
	}
	return ids, nil
}

// owner is the sandbox that a device with this uuid belongs to.
func owner(uuid string) (sandboxID string, ours bool) {
	rest, ours := strings.CutPrefix(uuid, uuidPrefix)
	if !ours {
		return "", false
	}
	sandboxID, err := id.Parse(strings.TrimSuffix(rest, baseSuffix))
	return sandboxID, err == nil
}

func (d *Driver) folder(sandboxID string) string {
	return filepath.Join(d.cfg.StateDir, "sandboxes", sandboxID)
}

func (d *Driver) storePath(sandboxID string) string {
	return filepath.Join(d.folder(sandboxID), storeFile)
}

// escapeGlob makes a folder's name mean itself in a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// node is the path of a device's node, checked to be that device's. The kernel makes it itself, in devtmpfs, whether or not
// there is a udev; the links under /dev/mapper are udev's and may come later or never.
func node(dev uint64) (string, error) {
	path := fmt.Sprintf("/dev/dm-%d", unix.Minor(dev))
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != dev) {
		err = os.ErrInvalid
	}
	if err != nil {
		return "", fmt.Errorf("%s is not the new device's node (%w); mount devtmpfs on /dev: %w", path, err, errs.ErrFailedPrecondition)
	}
	return path, nil
}
