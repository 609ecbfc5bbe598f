package leftovers

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The names of what is frozen.
const (
	buildDir      = "builds"
	refDir        = "refs"
	workingSetDir = "working-sets"
	buildPrefix   = "bd-"
	newPrefix     = ".new-"
	gonePrefix    = ".gone-"
	manifestFile  = "manifest"
	refSandbox    = "sandbox"
	refFork       = "fork"
	maxManifest   = 256 << 20
)

// builds lists what is frozen of sandboxes, and what nobody needs: what was never whole or is half removed, builds that no reference
// needs, working sets of builds that are not there. Templates' builds and snapshots stay until somebody deletes them.
func (h *host) builds() ([]Object, error) {
	root := filepath.Join(h.state, buildDir)
	list, needed, err := h.references(filepath.Join(root, refDir))
	if err != nil {
		return nil, err
	}
	names, err := readDir(root)
	if err != nil {
		return nil, err
	}
	locked, err := h.locks()
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, name := range names {
		path := filepath.Join(root, name)
		switch {
		case strings.HasPrefix(name, newPrefix) && isLocked(locked, path): // it is being made
		case strings.HasPrefix(name, newPrefix), strings.HasPrefix(name, gonePrefix):
			list = append(list, Object{Kind: "file", Name: path})
		case strings.HasPrefix(name, buildPrefix):
			there[name] = true
			if needed != nil && !needed[name] {
				list = append(list, Object{Kind: "file", Name: path})
			}
		}
	}
	sets, err := readDir(filepath.Join(h.state, workingSetDir))
	for _, name := range sets {
		if !there[name] {
			list = append(list, Object{Kind: "file", Name: filepath.Join(h.state, workingSetDir, name)})
		}
	}
	return list, err
}

// references lists those of sandboxes and forks, and those that were never moved to their place; needed is the builds that any of
// them needs, nil when that can't be known.
func (h *host) references(dir string) (list []Object, needed map[string]bool, err error) {
	kinds, err := readDir(dir)
	if err != nil {
		return nil, nil, err
	}
	needed = map[string]bool{}
	for _, kind := range kinds {
		names, err := readDir(filepath.Join(dir, kind))
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			path := filepath.Join(dir, kind, name)
			owner, _ := parseID(name)
			if strings.HasPrefix(name, newPrefix) || kind == refSandbox || kind == refFork {
				list = append(list, Object{"file", path, owner})
			}
			if needed != nil && !strings.HasPrefix(name, newPrefix) && !h.need(path, needed) {
				needed = nil
			}
		}
	}
	return list, needed, nil
}

// need adds the build that a reference points to, and those that it needs. It fails when that can't be read.
func (h *host) need(ref string, needed map[string]bool) bool {
	text, err := readFile(ref)
	if err != nil {
		return gone(err)
	}
	build := strings.TrimSpace(string(text))
	if !strings.HasPrefix(build, buildPrefix) || strings.ContainsRune(build, '/') {
		return false
	}
	f, err := os.Open(filepath.Join(h.state, buildDir, build, manifestFile))
	if err != nil {
		return false
	}
	defer f.Close()
	var manifest struct {
		Needs []struct {
			Build string `json:"build"`
		} `json:"needs"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxManifest)).Decode(&manifest); err != nil {
		return false
	}
	needed[build] = true
	for _, n := range manifest.Needs {
		needed[n.Build] = true
	}
	return true
}

// isLocked says whether a process has locked the file or folder.
func isLocked(locked map[string]bool, path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && locked[inode(st.Dev, st.Ino)]
}
