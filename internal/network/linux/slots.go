package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// slots is the folder that says which sandbox has which slot. An entry is a symbolic link: its name is the slot's number,
// its target, which no file has, the sandbox's id. A link appears with its content or not at all, and only one process can
// make it.
type slots struct{ dir string }

// handed ends the name of a link that is to take another's place.
const handed = ".new"

// claim takes a slot for the sandbox. ErrAlreadyExists when somebody has it.
func (s slots) claim(slot int, id string) error {
	path := s.path(slot)
	if err := os.Symlink(id, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("slot %d: %w", slot, errs.ErrAlreadyExists)
		}
		return err
	}
	if err := s.sync(); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// hand gives a slot that somebody has to the sandbox: it is the one's or the other's, whenever this process is killed.
func (s slots) hand(slot int, id string) error {
	tmp := s.path(slot) + handed
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(id, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path(slot)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return s.sync()
}

// tidy removes what a process that was killed while it handed a slot over has left. The caller has the host's lock.
func (s slots) tidy() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == handed {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, e.Name())))
		}
	}
	return err
}

// free gives a slot back. It is idempotent.
func (s slots) free(slot int) error {
	if err := os.Remove(s.path(slot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.sync()
}

// owner says which sandbox has the slot, "" for none.
func (s slots) owner(slot int) (string, error) {
	id, err := os.Readlink(s.path(slot))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return id, err
}

// all is every slot that is taken, with its sandbox.
func (s slots) all() (map[int]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	taken := map[int]string{}
	for _, e := range entries {
		slot, ok := slotNumber(e.Name(), "")
		if !ok {
			continue
		}
		id, err := s.owner(slot)
		if err != nil {
			return nil, err
		}
		if id != "" { // freed since the folder was read
			taken[slot] = id
		}
	}
	return taken, nil
}

// of is the slots that the sandbox has, lowest first: one, or none.
func (s slots) of(id string) ([]int, error) {
	taken, err := s.all()
	if err != nil {
		return nil, err
	}
	var list []int
	for slot, owner := range taken {
		if owner == id {
			list = append(list, slot)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (s slots) path(slot int) string { return filepath.Join(s.dir, strconv.Itoa(slot)) }

// sync makes what was done in the folder last.
func (s slots) sync() error {
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.dir, err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("sync %s: %w", s.dir, err)
	}
	return nil
}
