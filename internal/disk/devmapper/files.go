package devmapper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/sparse"
)

// room refuses when the file system of the stores is nearly full.
func (d *Driver) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.cfg.StateDir, &st); err != nil {
		return fmt.Errorf("state folder %s: %w", d.cfg.StateDir, err)
	}
	return d.spare(st, d.cfg.StateDir, "a new disk", 0)
}

// roomFor refuses to write so many bytes to a file if little is left then. A copy that fills the file system would take from
// every disk on it what it needs for its next write, and end them all.
func (d *Driver) roomFor(f *os.File, bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("file system of %s: %w", f.Name(), err)
	}
	return d.spare(st, f.Name(), "what is copied there", bytes)
}

// spare refuses when a file system has not so much free and the reserve beside it.
func (d *Driver) spare(st unix.Statfs_t, where, what string, bytes int64) error {
	if d.cfg.ReserveBytes < 0 {
		return nil
	}
	need := bytes + d.cfg.ReserveBytes
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%s has %d MiB free, %s needs %d: %w", where, free>>20, what, need>>20, errs.ErrResourceExhausted)
	}
	return nil
}

// copyInto makes the empty file dst have src's content, by sharing its blocks if the file system can.
func (d *Driver) copyInto(ctx context.Context, dst, src *os.File) (shared bool, err error) {
	if shared, err = sparse.Share(dst, src); shared || err != nil {
		return shared, err
	}
	used, err := sparse.Used(src.Name())
	if err != nil {
		return false, err
	}
	if err := d.roomFor(dst, used); err != nil {
		return false, err
	}
	return false, sparse.Copy(ctx, dst, src)
}

// full gives the error of a write its kind.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, errs.ErrResourceExhausted)
	}
	return err
}

// writeFile makes the file at path, which must not be there, with what fill writes, and syncs it. point comes after that,
// and done, if there is one, may look at it then. When anything fails the file is removed.
func writeFile(ctx context.Context, path string, point failpoint.Point, fill, done func(*os.File) error) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there: %w", path, errs.ErrAlreadyExists)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, errs.ErrNotFound)
	case err != nil:
		return full(err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(full(err), os.Remove(path))
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, point); err != nil || done == nil {
		return err
	}
	return done(f)
}
