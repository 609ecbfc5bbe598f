package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
)

// fakeHeader starts a frozen store of a Fake; the whole content of the disk follows it.
var fakeHeader = append([]byte("wrenn: the store of a fake disk\n"), make([]byte, blockBytes-32)...)

// Freeze implements disk.Freezer. The device of a fake is a file, so there is nothing to flush.
func (f *Fake) Freeze(ctx context.Context, sandboxID, dst string) (disk.Frozen, error) {
	if err := f.ask("Freeze", sandboxID); err != nil {
		return disk.Frozen{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return disk.Frozen{}, err
	}
	src, err := os.Open(f.path(sandboxID))
	if errors.Is(err, fs.ErrNotExist) {
		return disk.Frozen{}, fmt.Errorf("disk of %s: %w", sandboxID, errs.ErrNotFound)
	}
	if err != nil {
		return disk.Frozen{}, err
	}
	defer src.Close()
	if f.Lost != nil && f.Lost(sandboxID) {
		return disk.Frozen{}, fmt.Errorf("disk of %s lost a write: %w", sandboxID, errs.ErrResourceExhausted)
	}
	st, err := src.Stat()
	if err != nil {
		return disk.Frozen{}, err
	}
	size := blockBytes + st.Size()
	if err := writeNew(dst, size, io.MultiReader(bytes.NewReader(fakeHeader), src)); err != nil {
		return disk.Frozen{}, err
	}
	var made unix.Stat_t
	err = unix.Stat(dst, &made)
	return disk.Frozen{SizeBytes: size, DeviceBytes: st.Size(), HostBytes: made.Blocks * 512}, err
}

// Flatten implements disk.Freezer.
func (f *Fake) Flatten(ctx context.Context, base disk.Base, store string, sizeBytes int64, dst string) error {
	if err := f.fail("Flatten", ""); err != nil {
		return err
	}
	image, size, err := openImage(base, sizeBytes)
	if err != nil {
		return err
	}
	defer image.Close()
	frozen, err := openStore(store, size)
	if err != nil {
		return err
	}
	defer frozen.Close()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return writeNew(dst, size, frozen)
}

// writeNew is write for a file that the caller names.
func writeNew(path string, size int64, content io.Reader) error {
	err := write(path, size, content)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, errs.ErrNotFound)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %w", err, errs.ErrResourceExhausted)
	}
	return err
}

// content is what a disk starts from: the frozen store if there is one, else the image.
func content(store string, image *os.File, size int64) (from io.Reader, done func(), err error) {
	if store == "" {
		return image, func() {}, nil
	}
	f, err := openStore(store, size)
	return f, func() { _ = f.Close() }, err
}

// openStore opens the frozen store of a disk of this size where its content starts.
func openStore(path string, size int64) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w: %w", err, errs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	header := make([]byte, blockBytes)
	st, err := f.Stat()
	if err == nil {
		_, err = io.ReadFull(f, header)
	}
	if err != nil || st.Size() != blockBytes+size || !bytes.Equal(header, fakeHeader) {
		return nil, errors.Join(fmt.Errorf("store %s: %w", path, errs.ErrCorrupt), err, f.Close())
	}
	return f, nil
}
