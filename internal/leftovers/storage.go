package leftovers

import (
	"bytes"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dmDevices lists the device-mapper devices with a name or uuid of ours.
func (h *host) dmDevices() ([]Object, error) {
	devices, err := h.block("dm-")
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, dev := range devices {
		name, uuid := h.attr(dev, "dm/name"), h.attr(dev, "dm/uuid")
		rest, named := strings.CutPrefix(name, prefix)
		if fromUUID, marked := strings.CutPrefix(uuid, uuidPrefix); marked {
			rest = fromUUID
		} else if !named {
			continue
		}
		if name == "" {
			name = dev
		}
		list = append(list, Object{"dm", name, idIn(rest)})
	}
	return list, nil
}

// idIn reads the id that the text begins with: an id has one hyphen, and what follows the id begins with another.
func idIn(text string) string {
	parts := strings.SplitN(text, "-", 3)
	if len(parts) < 2 {
		return ""
	}
	owner, _ := parseID(parts[0] + "-" + parts[1])
	return owner
}

// loops lists the loop devices whose file lies in the state folder or whose name is ours.
func (h *host) loops() ([]Object, error) {
	devices, err := h.block("loop")
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, dev := range devices {
		file := strings.TrimSuffix(h.attr(dev, "loop/backing_file"), " (deleted)")
		if file == "" {
			continue // not in use
		}
		rest, inside := below(h.state, file)
		if !inside {
			name, err := h.loopName(dev)
			if err != nil && !gone(err) {
				return nil, err
			}
			if err != nil || !strings.HasPrefix(name, prefix) {
				continue
			}
		}
		list = append(list, Object{"loop", "/dev/" + dev + " on " + file, stateOwner(rest)})
	}
	return list, nil
}

// stateOwner reads the id out of a path in the state folder, "" when no sandbox owns what lies there.
func stateOwner(rest string) string {
	top, rest, _ := strings.Cut(rest, "/")
	switch top {
	case sandboxDir:
		first, _, _ := strings.Cut(rest, "/")
		owner, _ := parseID(first)
		return owner
	case jailDir:
		return jailOwner(rest)
	}
	return ""
}

// loopName reads the name that is kept in a loop device.
func loopName(dev string) (string, error) {
	fd, err := unix.Open("/dev/"+dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return "", err
	}
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(name), nil
}

// block is the names of the block devices that begin so.
func (h *host) block(begin string) ([]string, error) {
	names, err := readDir(filepath.Join(h.sys, "block"))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, n := range names {
		if strings.HasPrefix(n, begin) {
			list = append(list, n)
		}
	}
	return list, nil
}

// attr is a block device's attribute, "" when there is none.
func (h *host) attr(dev, name string) string {
	b, err := readFile(filepath.Join(h.sys, "block", dev, name))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// mounts lists what is mounted in the state folder's parts and on names of ours. The state folder itself, and its images,
// may be mounts of the host's owner.
func (h *host) mounts() ([]Object, error) {
	var list []Object
	err := lines(filepath.Join(h.proc, "self/mountinfo"), func(line string) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return
		}
		point := unescape(f[4])
		if slot, ok := below(h.netns, point); ok && strings.HasPrefix(slot, prefix) {
			list = append(list, Object{"mount", point, h.slotOwner(strings.TrimPrefix(slot, prefix))})
		}
		rest, ok := below(h.state, point)
		if !ok {
			return
		}
		switch top, _, _ := strings.Cut(rest, "/"); top {
		case jailDir, sandboxDir, slotDir, loopDir:
			list = append(list, Object{"mount", point, stateOwner(rest)})
		}
	})
	return list, err
}

// unescape undoes what the kernel does to blanks and backslashes in a path: \040 and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// chroots lists the jails: <state>/jail/<program>/<id>.
func (h *host) chroots() ([]Object, error) {
	programs, err := readDir(filepath.Join(h.state, jailDir))
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, program := range programs {
		dir := filepath.Join(h.state, jailDir, program)
		jails, err := readDir(dir)
		if isFile(err) {
			list = append(list, Object{Kind: "chroot", Name: dir})
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, jail := range jails {
			owner, _ := parseID(jail)
			list = append(list, Object{"chroot", filepath.Join(dir, jail), owner})
		}
	}
	return list, nil
}

func isFile(err error) bool { return errors.Is(err, unix.ENOTDIR) }

// files lists what is in the folders of sandboxes, slots and loop devices, and the chroots. The folders themselves stay.
func (h *host) files() ([]Object, error) {
	list, err := h.chroots()
	if err != nil {
		return nil, err
	}
	for _, top := range []string{sandboxDir, slotDir, loopDir} {
		names, err := readDir(filepath.Join(h.state, top))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			owner := stateOwner(top + "/" + name)
			if top == slotDir {
				owner = h.slotOwner(name)
			}
			list = append(list, Object{"file", filepath.Join(h.state, top, name), owner})
		}
	}
	return list, nil
}
