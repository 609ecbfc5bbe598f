// Package ramdisk is wrenn-init's first stage, /init of the initramfs: it loads the modules that reach the drives, mounts the
// root file system and the kernel's modules below it, and hands over to the second stage there.
//
// The root file system may be anybody's container image. This stage relies on nothing in it but the files that the image
// builder injects, and follows no link out of it.
package ramdisk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/init/cmdline"
	"wrenn.dev/wrenn/internal/guest/init/inroot"
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
	"wrenn.dev/wrenn/internal/guest/init/modules"
)

// Second is the program that the first stage ends in, in the root file system.
const Second = "/usr/lib/wrenn/init"

// The layout of the initramfs, made by the image builder.
const (
	// ModuleDir holds the modules to load. Their order is that of their names.
	ModuleDir = "/modules"
	// Optional ends the name of a module that a machine may refuse, because it lacks what the module is for.
	Optional = ".optional.ko"
	// NewRoot is the empty folder that the root file system is mounted on.
	NewRoot = "/newroot"
)

// devicePatience bounds the wait for the root device. An emulated machine needs some of it.
const devicePatience = 60 * time.Second

// Run does all of the first stage. It returns only when it fails.
func Run() error {
	// A file system's root can be read before it is mounted anywhere, so /proc needs no place here.
	proc, err := filesystem("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	args, err := readArgs(proc)
	if err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	dev, err := filesystem("devtmpfs", unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return err
	}
	if err := attach(dev, unix.AT_FDCWD, "/dev"); err != nil {
		return err
	}
	if err := waitFor(args.Root, devicePatience); err != nil {
		return err
	}
	root, err := mountRoot(args)
	if err != nil {
		return err
	}
	if err := populate(root, args, proc, dev); err != nil {
		return err
	}
	return handOver()
}

func readArgs(proc int) (cmdline.Args, error) {
	fd, err := unix.Openat(proc, "cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cmdline.Args{}, fmt.Errorf("kernel command line: %w", err)
	}
	defer unix.Close(fd)
	line := make([]byte, 4096) // the kernel's own limit is half of it
	n, err := unix.Read(fd, line)
	if err != nil {
		return cmdline.Args{}, fmt.Errorf("kernel command line: %w", err)
	}
	return cmdline.Parse(string(line[:n]))
}

// loadModules loads the initramfs's modules and removes their files, whose memory the guest gets back.
func loadModules() error {
	files, err := filepath.Glob(ModuleDir + "/*")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		err := modules.LoadFile(f)
		if err != nil && !strings.HasSuffix(f, Optional) {
			return err
		}
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

func mountRoot(args cmdline.Args) (int, error) {
	flags := uintptr(unix.MS_NOATIME)
	if args.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(args.Root, NewRoot, "ext4", flags, ""); err != nil {
		return -1, fmt.Errorf("mount the root file system %s: %w", args.Root, err)
	}
	fd, err := unix.Open(NewRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", NewRoot, err)
	}
	return fd, nil
}

// populate mounts below the new root what the second stage starts with: /proc, the modules, and last /dev, because the
// modules' device is found there.
func populate(root int, args cmdline.Args, proc, dev int) error {
	if err := attachBelow(root, "proc", proc); err != nil {
		return err
	}
	if args.Modules != "" {
		if err := attachModules(root, args.Modules); err != nil {
			return err
		}
	}
	return attachBelow(root, "dev", dev)
}

// attachModules mounts the drive of the kernel's modules. A machine without one, or without a place for it, goes on without
// more modules than it has.
func attachModules(root int, device string) error {
	if !there(device) {
		kmsg.Warn("no kernel modules: there is no %s", device)
		return nil
	}
	mount, err := readOnlyExt4(device)
	if err != nil {
		return fmt.Errorf("mount the kernel modules: %w", err)
	}
	err = attachBelow(root, "lib/modules", mount)
	if errors.Is(err, unix.EROFS) {
		kmsg.Warn("no kernel modules: the image has no folder for them and is read-only")
		return nil
	}
	return err
}

func attachBelow(root int, name string, mount int) error {
	dir, err := inroot.Dir(root, name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := attach(mount, dir, ""); err != nil {
		return fmt.Errorf("mount /%s: %w", name, err)
	}
	return nil
}

// handOver makes the new root the root, frees what is left of the initramfs and becomes the second stage.
func handOver() error {
	for _, f := range []string{"/init", ModuleDir} {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	if err := os.Chdir(NewRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make the new root the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("make the new root the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", Second, unix.Exec(Second, []string{Second}, []string{}))
}
