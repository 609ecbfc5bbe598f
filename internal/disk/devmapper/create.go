package devmapper

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/disk/devmapper/exception"
	"wrenn.dev/wrenn/internal/disk/devmapper/loop"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
)

// The names of the steps; see failpoint. Each comes after something was made or removed.
var (
	pointStore       = failpoint.New("disk.store")
	pointRestore     = failpoint.New("disk.restore-store")
	pointRestored    = failpoint.New("disk.restore-copied")
	pointStoreLoop   = failpoint.New("disk.store-loop")
	pointBase        = failpoint.New("disk.base")
	pointBaseCreated = failpoint.New("disk.base-device")
	pointBaseLoaded  = failpoint.New("disk.base-device-loaded")
	pointBaseLive    = failpoint.New("disk.base-device-live")
	pointCreated     = failpoint.New("disk.device")
	pointLoaded      = failpoint.New("disk.device-loaded")
	pointLive        = failpoint.New("disk.device-live")
	pointDeviceGone  = failpoint.New("disk.device-gone")
	pointBaseGone    = failpoint.New("disk.base-device-gone")
	pointStoreGone   = failpoint.New("disk.store-gone")
)

// Failpoints are the names of the driver's steps in the life of a disk that is larger than its image, in their order. Those
// of Remove end in "-gone".
func Failpoints() []string {
	list := append(failpoint.Names(pointStore, pointStoreLoop), loop.Failpoints()...)
	return append(list, failpoint.Names(pointBase, pointBaseCreated, pointBaseLoaded, pointBaseLive, pointCreated, pointLoaded, pointLive,
		pointDeviceGone, pointBaseGone, pointStoreGone)...)
}

// RestoreFailpoints are the names of the steps that only a Create from a frozen store has, in their order. They come before
// all of Failpoints.
func RestoreFailpoints() []string { return failpoint.Names(pointRestore, pointRestored) }

// creation is one disk being made.
type creation struct {
	*Driver
	control *dm.Control
	id      string
	size    int64 // of the device
	image   *os.File
	// imageBytes is the image's size.
	imageBytes int64
	digest     string
	frozen     *os.File // the frozen store, nil for none
	undo       *cleanup.Stack
}

// Create implements disk.Driver.
func (d *Driver) Create(ctx context.Context, spec disk.Spec) (_ disk.Disk, err error) {
	c := &creation{Driver: d, id: spec.ID, digest: spec.Base.Digest, undo: cleanup.New(ctx)}
	defer c.close()
	if err := c.check(spec); err != nil {
		return disk.Disk{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return disk.Disk{}, err
	}
	if c.control, err = dm.Open(); err != nil {
		return disk.Disk{}, err
	}
	defer c.control.Close()
	if err := d.room(); err != nil {
		return disk.Disk{}, err
	}
	defer c.undo.Clean(&err)
	dev, err := c.build(ctx)
	if err != nil {
		return disk.Disk{}, fmt.Errorf("disk of %s: %w", c.id, err)
	}
	path, err := node(dev)
	if err != nil {
		return disk.Disk{}, fmt.Errorf("disk of %s: %w", c.id, err)
	}
	c.undo.Release()
	return disk.Disk{Device: path, SizeBytes: c.size}, nil
}

// check refuses a Spec that can't be, and opens the files that it names.
func (c *creation) check(spec disk.Spec) error {
	if _, err := id.Parse(spec.ID); err != nil {
		return err
	}
	var err error
	if c.image, c.imageBytes, err = openImage(spec.Base); err != nil {
		return err
	}
	if c.size, err = deviceBytes(spec.SizeBytes, c.imageBytes); err != nil || spec.Store == "" {
		return err
	}
	c.frozen, err = c.openStore(spec.Store, c.size)
	return err
}

// close closes what check opened.
func (c *creation) close() {
	for _, f := range []*os.File{c.image, c.frozen} {
		if f != nil {
			_ = f.Close() // it was only read
		}
	}
}

// openImage opens a base and returns its size.
func openImage(base disk.Base) (*os.File, int64, error) {
	if raw, err := hex.DecodeString(base.Digest); err != nil || len(raw) != 32 || strings.ToLower(base.Digest) != base.Digest {
		return nil, 0, errs.Field("base digest", fmt.Sprintf("%.80q is no sha256", base.Digest), "give 64 digits of 0-9a-f")
	}
	f, err := os.Open(base.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("image %s: %w", base.Path, errs.ErrNotFound)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("image: %w", err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() == 0 || st.Size()%dm.SectorBytes != 0) {
		err = errs.Field("base", fmt.Sprintf("%s is no disk image", base.Path), "give a file of whole 512-byte sectors")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// build makes the disk from the bottom up and returns its device number. The loop devices are held only until a table
// holds them.
func (c *creation) build(ctx context.Context) (uint64, error) {
	store, err := c.store(ctx)
	if err != nil {
		return 0, err
	}
	defer store.Close()
	image, err := c.bases.Acquire(ctx, c.digest, c.image)
	if err != nil {
		return 0, err
	}
	defer image.Close()
	c.undo.Add("forget the image's loop device", c.bases.Prune)
	if err := failpoint.Here(ctx, pointBase); err != nil {
		return 0, err
	}
	origin := image.Table()
	if c.size > c.imageBytes {
		base, err := c.base(ctx, image)
		if err != nil {
			return 0, err
		}
		origin = fmt.Sprintf("%d:%d", unix.Major(base), unix.Minor(base))
	}
	return c.device(ctx, device{
		name: namePrefix + c.id, uuid: uuidPrefix + c.id,
		table: []dm.Target{{Sectors: uint64(c.size) / dm.SectorBytes, Type: "snapshot",
			Params: fmt.Sprintf("%s %s P %d", origin, store.Table(), exception.ChunkSectors)}},
		points: [3]failpoint.Point{pointCreated, pointLoaded, pointLive},
	})
}

// store makes the file of the disk's changes and its loop device.
func (c *creation) store(ctx context.Context) (*loop.Device, error) {
	if err := c.makeFolder(); err != nil {
		return nil, err
	}
	path := c.storePath(c.id)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s is there: %w", path, errs.ErrAlreadyExists)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c.undo.Add("remove the store", func(ctx context.Context) error { return c.removeStore(ctx, c.id) })
	if err := c.fillStore(ctx, f); err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointStore); err != nil {
		return nil, err
	}
	store, err := loop.Attach(ctx, f, loop.Spec{Name: c.id, Direct: true})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointStoreLoop); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// fillStore gives a new store its size and, if the disk starts from a frozen one, its content. The kernel makes a store of its
// own of one that is empty, and reads one that has a header.
func (c *creation) fillStore(ctx context.Context, f *os.File) error {
	if c.frozen == nil {
		return f.Truncate(c.storeBytes(c.size))
	}
	if err := failpoint.Here(ctx, pointRestore); err != nil {
		return err
	}
	if _, err := c.copyInto(ctx, f, c.frozen); err != nil {
		return full(err)
	}
	return failpoint.Here(ctx, pointRestored)
}

// makeFolder makes the sandbox's folder if nobody did before.
func (c *creation) makeFolder() error {
	folder := c.folder(c.id)
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(folder, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		c.undo.Add("remove the folder", func(context.Context) error { return os.Remove(folder) })
	}
	return err
}

// base makes the image's device larger: zeros follow it. It is read-only.
func (c *creation) base(ctx context.Context, image *loop.Device) (uint64, error) {
	end := uint64(c.imageBytes) / dm.SectorBytes
	return c.device(ctx, device{
		name: namePrefix + c.id + baseSuffix, uuid: uuidPrefix + c.id + baseSuffix, readOnly: true,
		table: []dm.Target{
			{Sectors: end, Type: "linear", Params: image.Table() + " 0"},
			{Start: end, Sectors: uint64(c.size)/dm.SectorBytes - end, Type: "zero"},
		},
		points: [3]failpoint.Point{pointBaseCreated, pointBaseLoaded, pointBaseLive},
	})
}

// device is one device-mapper device to make.
type device struct {
	name, uuid string
	readOnly   bool
	table      []dm.Target
	points     [3]failpoint.Point // after it is created, loaded and live
}

// device makes a device-mapper device with its table in force and returns its number.
func (c *creation) device(ctx context.Context, dev device) (uint64, error) {
	info, err := c.control.Create(dev.name, dev.uuid)
	if err != nil {
		return 0, err
	}
	c.undo.Add("remove "+dev.name, func(ctx context.Context) error { return removeDevice(ctx, c.control, dev.uuid) })
	if err := failpoint.Here(ctx, dev.points[0]); err != nil {
		return 0, err
	}
	if err := c.control.Load(dev.uuid, dev.readOnly, dev.table...); err != nil {
		return 0, err
	}
	if err := failpoint.Here(ctx, dev.points[1]); err != nil {
		return 0, err
	}
	if err := c.control.Resume(dev.uuid); err != nil {
		return 0, err
	}
	return info.Dev, failpoint.Here(ctx, dev.points[2])
}
