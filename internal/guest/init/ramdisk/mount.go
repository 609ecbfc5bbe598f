package ramdisk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// filesystem makes a mount of a kernel file system that is attached nowhere yet.
func filesystem(kind string, attrs int) (int, error) {
	return detached(kind, attrs, func(fs int) error {
		return unix.FsconfigSetString(fs, "source", kind)
	})
}

// readOnlyExt4 makes a mount of the ext4 file system on a device that is attached nowhere yet.
func readOnlyExt4(device string) (int, error) {
	return detached("ext4", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, func(fs int) error {
		if err := unix.FsconfigSetString(fs, "source", device); err != nil {
			return err
		}
		return unix.FsconfigSetFlag(fs, "ro")
	})
}

func detached(kind string, attrs int, configure func(fs int) error) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("file system %s: %w", kind, err)
	}
	defer unix.Close(fs)
	if err := configure(fs); err != nil {
		return -1, fmt.Errorf("file system %s: %w", kind, err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("file system %s: %w", kind, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("file system %s: %w", kind, err)
	}
	return mount, nil
}

// attach puts a mount, new or attached elsewhere, on the folder name below dir, or on dir itself when name is empty.
func attach(mount, dir int, name string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if name == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return unix.MoveMount(mount, "", dir, name, flags)
}
