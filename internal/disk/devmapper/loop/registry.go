package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
)

// Registry shares one read-only loop device per image between all sandboxes of the host and all processes that make them.
//
// The folder <dir>/<digest>/ says where the device of an image is. It is a hint and never believed: Acquire opens the device
// and asks the kernel whether it is ours, read-only and backed by this very file, and makes a new one if not. There is no
// count of references to go wrong. Whoever holds the device open is a reference, be it a process or a device-mapper table, and
// the kernel clears the device when the last one goes.
type Registry struct {
	dir  string // one folder an image
	lock string // the file that is locked for the short time of a look and a change
}

// The names of the registry's steps; see failpoint.
var (
	pointEntry  = failpoint.New("disk.base-entry")
	pointDevice = failpoint.New("disk.base-loop")
)

// Failpoints are the names of Acquire's steps, in their order, when the image has no device yet.
func Failpoints() []string { return failpoint.Names(pointEntry, pointDevice) }

const numberFile = "device"

// maxNumberBytes bounds what is read of a number file.
const maxNumberBytes = 16

// NewRegistry returns the registry that is kept in dir, with its lock beside it. The folder is made when it is needed.
func NewRegistry(dir string) *Registry {
	return &Registry{dir: dir, lock: dir + ".lock"}
}

// Acquire returns the loop device of an image, held open: an existing one, or a new one. Digest names the image and must be
// fit for a file name.
func (r *Registry) Acquire(ctx context.Context, digest string, image *os.File) (d *Device, err error) {
	err = r.exclusively(ctx, func() error {
		if d, err = r.existing(digest, image); d != nil || err != nil {
			return err
		}
		d, err = r.attach(ctx, digest, image)
		return err
	})
	return d, err
}

// existing opens the image's device, nil when there is none that may be used.
func (r *Registry) existing(digest string, image *os.File) (*Device, error) {
	d, s, err := r.device(digest)
	if d == nil || err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if s.Dev != st.Dev || s.Inode != st.Ino || !s.ReadOnly || !s.AutoClear || !s.Whole {
		return nil, d.Close()
	}
	return d, nil
}

// device opens the device that the entry names, nil when it is not there or not ours.
func (r *Registry) device(digest string) (*Device, Status, error) {
	number, err := r.number(digest)
	if number < 0 || err != nil {
		return nil, Status{}, err
	}
	d, err := Open(number)
	if errors.Is(err, errs.ErrNotFound) {
		return nil, Status{}, nil
	}
	if err != nil {
		return nil, Status{}, err
	}
	s, err := d.Status()
	if errors.Is(err, errs.ErrNotFound) || err == nil && s.Name != deviceName(digest) {
		return nil, Status{}, d.Close()
	}
	if err != nil {
		return nil, Status{}, errors.Join(err, d.Close())
	}
	return d, s, nil
}

// number reads an entry, -1 when it is not there or says nothing.
func (r *Registry) number(digest string) (int, error) {
	f, err := os.Open(filepath.Join(r.dir, digest, numberFile))
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer f.Close()
	b := make([]byte, maxNumberBytes)
	n, _ := f.Read(b)
	number, err := strconv.ParseUint(strings.TrimSpace(string(b[:n])), 10, 20)
	if err != nil {
		return -1, nil // written half, when the host lost power: as if it were not there
	}
	return int(number), nil
}

// attach makes the device and its entry, the entry first: whatever is in the kernel has an owner on disk.
func (r *Registry) attach(ctx context.Context, digest string, image *os.File) (_ *Device, err error) {
	entry := filepath.Join(r.dir, digest)
	if err := os.MkdirAll(entry, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(entry))
		}
	}()
	if err := failpoint.Here(ctx, pointEntry); err != nil {
		return nil, err
	}
	d, err := Attach(ctx, image, Spec{Name: digest, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Here(ctx, pointDevice); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := replace(filepath.Join(entry, numberFile), strconv.Itoa(d.Number)+"\n"); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Prune forgets the images whose device is gone. A device that nothing uses any more may be there for a moment still,
// because the host's udev looks at it; Prune waits for that, but no longer than patience.
func (r *Registry) Prune(ctx context.Context) error {
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return poll(ctx, func() (idle bool, err error) {
		err = r.exclusively(ctx, func() (err error) {
			idle, err = r.prune()
			return err
		})
		return !idle, err
	})
}

// prune looks at every entry once, and says whether there is a device that is in no table.
func (r *Registry) prune() (idle bool, err error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return false, err
	}
	var failed []error
	for _, e := range entries {
		d, _, err := r.device(e.Name())
		switch {
		case err != nil:
			failed = append(failed, err)
		case d != nil:
			idle = idle || !held(d.Number)
			failed = append(failed, d.Close())
		default:
			failed = append(failed, os.RemoveAll(filepath.Join(r.dir, e.Name())))
		}
	}
	return idle, errors.Join(failed...)
}

// exclusively runs fn while no other process or goroutine does. The lock is asked for again and again and not waited for in
// the kernel, so that the context's end is seen although the holder does not move.
func (r *Registry) exclusively(ctx context.Context, fn func() error) error {
	if err := os.MkdirAll(filepath.Dir(r.lock), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(r.lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return fn()
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock %s: %w", r.lock, err)
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return fmt.Errorf("wait for the lock %s: %w", r.lock, context.Cause(ctx))
		}
	}
}

// deviceName is the name that the kernel keeps for an image's device.
func deviceName(digest string) string {
	name := Prefix + digest
	return name[:min(len(name), maxNameBytes)]
}

// replace writes a small file so that a reader sees the old or the new content, never a part.
func replace(path, content string) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
