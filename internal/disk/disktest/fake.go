package disktest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// Fake is a disk.Driver whose disks are plain files, each a copy of its image. It needs neither root nor a kernel's help.
type Fake struct {
	// Dir is the state folder; a disk is sandboxes/<id>/disk in it.
	Dir string
	// Fail, if it is set, is asked first in every call, with the method's name and the sandbox's id. What it returns is the
	// call's error, and nothing is done.
	Fail func(method, id string) error
	// Lost, if it is set, says whether a disk has lost a write, for Usage.
	Lost func(id string) bool
}

var _ disk.Freezer = (*Fake)(nil)

const blockBytes = 4096

// Create implements disk.Driver.
func (f *Fake) Create(ctx context.Context, spec disk.Spec) (_ disk.Disk, err error) {
	if err := f.ask("Create", spec.ID); err != nil {
		return disk.Disk{}, err
	}
	image, size, err := openImage(spec.Base, spec.SizeBytes)
	if err != nil {
		return disk.Disk{}, err
	}
	defer image.Close()
	content, closeContent, err := content(spec.Store, image, size)
	if err != nil {
		return disk.Disk{}, err
	}
	defer closeContent()
	if err := context.Cause(ctx); err != nil {
		return disk.Disk{}, err
	}
	path := f.path(spec.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return disk.Disk{}, err
	}
	return disk.Disk{Device: path, SizeBytes: size}, write(path, size, content)
}

// openImage opens a base and says how large a disk over it is.
func openImage(base disk.Base, asked int64) (*os.File, int64, error) {
	if raw, err := hex.DecodeString(base.Digest); err != nil || len(raw) != 32 {
		return nil, 0, errs.Field("base digest", base.Digest+" is no sha256", "give one")
	}
	image, err := os.Open(base.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("image: %w: %w", err, errs.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	size, err := deviceBytes(asked, image)
	if err != nil {
		return nil, 0, errors.Join(err, image.Close())
	}
	return image, size, nil
}

func deviceBytes(asked int64, image *os.File) (int64, error) {
	st, err := image.Stat()
	if err != nil {
		return 0, err
	}
	if asked == 0 {
		asked = st.Size()
	}
	if asked < st.Size() {
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is less than the image's", asked), "give more")
	}
	if asked > disk.MaxSizeBytes {
		return 0, errs.Field("disk size", fmt.Sprintf("%d bytes is too much", asked), "give less")
	}
	return (asked + blockBytes - 1) / blockBytes * blockBytes, nil
}

// write makes a file that is not there: the content, then a hole up to size.
func write(path string, size int64, content io.Reader) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", err, errs.ErrAlreadyExists)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Truncate(size), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Usage implements disk.Driver.
func (f *Fake) Usage(_ context.Context, sandboxID string) (disk.Usage, error) {
	if err := f.ask("Usage", sandboxID); err != nil {
		return disk.Usage{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(f.path(sandboxID), &st); errors.Is(err, fs.ErrNotExist) {
		return disk.Usage{}, fmt.Errorf("disk of %s: %w", sandboxID, errs.ErrNotFound)
	} else if err != nil {
		return disk.Usage{}, err
	}
	host := st.Blocks * 512
	return disk.Usage{UsedBytes: host, CapacityBytes: max(host, st.Size), HostBytes: host,
		Failed: f.Lost != nil && f.Lost(sandboxID)}, nil
}

// Remove implements disk.Driver.
func (f *Fake) Remove(_ context.Context, sandboxID string) error {
	if err := f.ask("Remove", sandboxID); err != nil {
		return err
	}
	path := f.path(sandboxID)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Remove(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// List implements disk.Driver.
func (f *Fake) List(context.Context) ([]string, error) {
	if err := f.fail("List", ""); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(f.Dir, "sandboxes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if _, err := os.Stat(f.path(e.Name())); err == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// ask checks the id and lets the test fail the call.
func (f *Fake) ask(method, sandboxID string) error {
	if _, err := id.Parse(sandboxID); err != nil {
		return err
	}
	return f.fail(method, sandboxID)
}

func (f *Fake) fail(method, sandboxID string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(method, sandboxID)
}

func (f *Fake) path(sandboxID string) string {
	return filepath.Join(f.Dir, "sandboxes", sandboxID, "disk")
}
