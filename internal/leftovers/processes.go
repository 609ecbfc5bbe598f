package leftovers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processes lists those in a cgroup of ours, those whose root folder is a chroot of ours, and those whose program or root
// lies in the jails. A process shows its root as "/" once it has a mount namespace of its own, so folders are compared by
// what they are and not by name.
func (h *host) processes() ([]Object, error) {
	names, err := readDir(h.proc)
	if err != nil {
		return nil, err
	}
	roots, err := h.chrootInodes()
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, pid := range names {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if owner, ours := h.processOwner(filepath.Join(h.proc, pid), roots); ours {
			list = append(list, Object{"process", h.processName(pid), owner})
		}
	}
	return list, nil
}

// processName is the number and the command of a process.
func (h *host) processName(pid string) string {
	comm, err := readFile(filepath.Join(h.proc, pid, "comm"))
	if err != nil {
		return pid
	}
	return pid + " (" + strings.TrimSpace(string(comm)) + ")"
}

// processOwner says whether a process is ours, and whose. One that ended meanwhile is not.
func (h *host) processOwner(dir string, roots map[string]string) (owner string, ours bool) {
	if b, err := readFile(filepath.Join(dir, "cgroup")); err == nil {
		for line := range strings.Lines(string(b)) {
			// "0::/wrenn/<id>" is the unified hierarchy's line.
			path, unified := strings.CutPrefix(strings.TrimSpace(line), "0::/")
			top, rest, _ := strings.Cut(path, "/")
			if unified && (top == cgroupName || top == pagersName) {
				first, _, _ := strings.Cut(rest, "/")
				owner, _ = parseID(first)
				return owner, true
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "root"), &st); err == nil {
		if owner, ours = roots[inode(st.Dev, st.Ino)]; ours {
			return owner, true
		}
	}
	for _, link := range []string{"root", "exe"} {
		target, err := os.Readlink(filepath.Join(dir, link))
		if err != nil {
			continue // no such link, as a kernel thread has none, or ended
		}
		if rest, ok := below(filepath.Join(h.state, jailDir), target); ok {
			return jailOwner(rest), true
		}
	}
	return "", false
}

// jailOwner reads the id out of a path below the jails: <program>/<id>/…
func jailOwner(rest string) string {
	parts := strings.Split(rest, "/")
	if len(parts) < 2 {
		return ""
	}
	owner, _ := parseID(parts[1])
	return owner
}

// chrootInodes is what the chroots' root folders are, and whose.
func (h *host) chrootInodes() (map[string]string, error) {
	roots := map[string]string{}
	chroots, err := h.chroots()
	if err != nil {
		return nil, err
	}
	for _, c := range chroots {
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(c.Name, "root"), &st)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		roots[inode(st.Dev, st.Ino)] = c.Owner
	}
	return roots, nil
}

// cgroups lists our parent groups and all that is in them.
func (h *host) cgroups() ([]Object, error) {
	var list []Object
	for _, name := range []string{cgroupName, pagersName} {
		some, err := groupsBelow(filepath.Join(h.sys, "fs/cgroup", name))
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	return list, nil
}

func groupsBelow(top string) ([]Object, error) {
	var list []Object
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch {
		case gone(err):
			return nil
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		}
		rest, _ := below(top, path)
		first, _, _ := strings.Cut(rest, "/")
		owner, _ := parseID(first)
		list = append(list, Object{"cgroup", path, owner})
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return list, nil
}
