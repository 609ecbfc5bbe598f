// Package smallfile reads and changes a system's small configuration files, where an image of anybody's may have put something
// else in their place.
//
// It is a leaf package.
package smallfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// maxBytes bounds what is read of a file.
const maxBytes = 1 << 20

// Update rewrites a small file if change makes it another. A link is read through, and replaced by a file when what it leads to
// has to change.
func Update(path string, change func(old []byte) []byte) error {
	old, err := Read(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is left as it is: %w", path, err)
	}
	text := change(old)
	if bytes.Equal(text, old) {
		return nil
	}
	if err := Replace(path, text); err != nil {
		return fmt.Errorf("%s is left as it is: %w", path, err)
	}
	return nil
}

// Read reads a regular file; anything else could block or never end.
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fmt.Errorf("%s is no small file: %w", path, errs.ErrInvalid)
	}
	return io.ReadAll(io.LimitReader(f, maxBytes))
}

// Replace puts a file in the place of whatever is at path, at once.
func Replace(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".wrenn-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
