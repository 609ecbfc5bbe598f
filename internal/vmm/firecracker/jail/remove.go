package jail

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Remove removes all that the id has in the base. It is idempotent. No process of the jail may run any more.
//
// What is inside may be hostile: links to elsewhere, a million files, folders nested without end. Nothing is followed, no
// mount is entered, and it takes the same few descriptors and no recursion however deep it is.
func (b Base) Remove(ctx context.Context, id string) error {
	dirs, err := b.find(id)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := removeTree(ctx, dir); err != nil {
			return fmt.Errorf("remove jail %s: %w", id, err)
		}
	}
	return nil
}

// removeTree empties a folder and removes it. The folder itself, but nothing inside it, is known to be harmless.
func removeTree(ctx context.Context, dir string) error {
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(top)
	// From here on Killed is true, whatever of the folder is gone.
	if err := unix.Renameat(top, rootName, top, removedName); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := flatten(ctx, top); err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// flatten empties the folder top: a folder in it loses its files at once, and the folders in that one are moved up to top,
// to be emptied in their turn. So nothing is ever more than one level deep.
func flatten(ctx context.Context, top int) error {
	moved := 0
	for {
		names, err := entries(top)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := drop(ctx, top, name, &moved); err != nil {
				return err
			}
		}
	}
}

// drop removes one entry of top.
func drop(ctx context.Context, top int, name string, moved *int) error {
	if err := unix.Unlinkat(top, name, 0); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	} else if !errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	dir, err := unix.Openat2(top, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	defer unix.Close(dir)
	if err := empty(ctx, top, dir, moved); err != nil {
		return err
	}
	if err := unix.Unlinkat(top, name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("%s: %w", strconv.Quote(name), err)
	}
	return nil
}

// empty unlinks the files of dir and moves its folders to top under names that nothing else has.
func empty(ctx context.Context, top, dir int, moved *int) error {
	for {
		names, err := entries(dir)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			err := unix.Unlinkat(dir, name, 0)
			for errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) {
				*moved++
				err = unix.Renameat2(dir, name, top, "moved-"+strconv.Itoa(*moved), unix.RENAME_NOREPLACE)
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("%s: %w", strconv.Quote(name), err)
			}
		}
	}
}

// entries reads some of a folder's names from its beginning, none when it is empty.
func entries(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			return nil, err
		}
		if _, _, names := unix.ParseDirent(buf[:n], -1, nil); len(names) > 0 {
			return names, nil
		}
	}
}
