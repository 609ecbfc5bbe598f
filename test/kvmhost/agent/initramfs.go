package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// rootDisk is the first virtio disk, and diskPatience how long it may take to appear.
const (
	rootDisk     = "/dev/vda"
	diskPatience = time.Minute
)

// enterRoot runs in the initramfs: it mounts the root disk and starts the agent again there. It returns only errors.
func enterRoot() error {
	if err := mount("devtmpfs", "/dev", 0, ""); err != nil {
		return err
	}
	if err := useConsole(); err != nil {
		return err
	}
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, m := range modules { // their names sort in the order that they need
		if err := loadModule(m); err != nil {
			return err
		}
	}
	if err := waitFor(rootDisk); err != nil {
		return err
	}
	const root = "/root"
	if err := unix.Mount(rootDisk, root, "ext4", unix.MS_NOATIME, "noinit_itable"); err != nil {
		return fmt.Errorf("mount the root disk: %w", err)
	}
	if err := mount("tmpfs", root+"/run", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := copyFile(root+initPath, "/init"); err != nil {
		return err
	}
	if err := unix.Mount("/dev", root+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev: %w", err)
	}
	if err := switchRoot(root); err != nil {
		return err
	}
	return unix.Exec(initPath, []string{initPath}, os.Environ())
}

// useConsole makes the console this process's stdin, stdout and stderr: the kernel found none in the initramfs.
func useConsole() error {
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open the console: %w", err)
	}
	for target := range 3 {
		if fd != target {
			if err := unix.Dup3(fd, target, 0); err != nil {
				return fmt.Errorf("use the console: %w", err)
			}
		}
	}
	return nil
}

// switchRoot makes the file system mounted at dir the root.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func waitFor(path string) error {
	for deadline := time.Now().Add(diskPatience); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// loadModule loads a kernel module, packed with xz or not.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) == ".xz" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

func copyFile(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// mount mounts a file system without a device, at a folder that it makes.
func mount(kind, at string, flags uintptr, data string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, at, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}
