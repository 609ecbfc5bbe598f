package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Cgroups and devices are the kernel's, and the drivers see those of every state folder. A sandbox's folder is there before anything else of
// it and goes last: so what has no folder here, but has one in another state folder, is another agent's, and not what a crash left.

// enroll tells the others on this kernel of the state folder, by a link in the folder of neighbours.
func enroll(neighbours, stateDir string) error {
	if neighbours == "" {
		return nil
	}
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(neighbours, 0o755); err != nil {
		return fmt.Errorf("tell other agents of this state folder: %w", err)
	}
	sum := sha256.Sum256([]byte(dir))
	err = os.Symlink(dir, filepath.Join(neighbours, hex.EncodeToString(sum[:8])))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// withoutNeighbours takes out of ids what is in none of our folders but in another agent's.
func (m *Manager) withoutNeighbours(ids []string) ([]string, error) {
	if m.cfg.Neighbours == "" {
		return ids, nil
	}
	links, err := os.ReadDir(m.cfg.Neighbours)
	if err != nil {
		return nil, err
	}
	own, err := filepath.Abs(m.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, l := range links {
		dir, err := os.Readlink(filepath.Join(m.cfg.Neighbours, l.Name()))
		if err == nil && dir != own {
			others = append(others, filepath.Join(dir, "sandboxes"))
		}
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		if there(m.path(id)) {
			return false
		}
		return slices.ContainsFunc(others, func(dir string) bool { return there(filepath.Join(dir, id)) })
	}), nil
}

// there says whether something is, or can't be seen: then it is better thought to be.
func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
