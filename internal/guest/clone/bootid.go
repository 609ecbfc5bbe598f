package clone

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// bootID is the kernel's boot id, and the file that covers it once the machine is a clone.
type bootID struct{ kernel, cover string }

// renew gives the machine a new boot id. The file is mounted over the kernel's once and written in place from then on, so that
// who reads it sees the old id or the new one.
func (b bootID) renew() error {
	if err := os.MkdirAll(filepath.Dir(b.cover), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(b.cover, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file: %w", b.cover, errs.ErrFailedPrecondition)
	}
	text := []byte(newUUID() + "\n")
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(int64(len(text))), f.Chmod(0o444)); err != nil {
		return err
	}
	return b.mount(info)
}

// mount covers the kernel's boot id unless it is covered already.
func (b bootID) mount(cover os.FileInfo) error {
	now, err := os.Stat(b.kernel)
	if err != nil || os.SameFile(now, cover) {
		return err
	}
	if err := unix.Mount(b.cover, b.kernel, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", b.cover, b.kernel, err)
	}
	return nil
}

// newUUID is a random UUID, version 4, as the kernel writes its boot id.
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
