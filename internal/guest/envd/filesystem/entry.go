package filesystem

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Type is what an entry is.
type Type int

// The types. Other is a pipe, a socket or a device.
const (
	Other Type = iota
	File
	Directory
	Symlink
)

// Entry is what is known of something that has a name. All its texts are UTF-8.
type Entry struct {
	Name, Path string
	// Type and Mode, the nine permission bits, are those of the target for a symbolic link that has one.
	Type Type
	Mode uint32
	Size int64
	// Permissions are those of the entry itself, as in "-rw-r--r--".
	Permissions  string
	Owner, Group string
	Modified     time.Time
	// Target is the absolute path that a symbolic link leads to, nil for what is none.
	Target *string
	// Metadata is what the extended attributes below MetadataPrefix say; nil when there are none.
	Metadata map[string]string
}

// MetadataPrefix is before the name of each extended attribute that is metadata.
const MetadataPrefix = "user.e2b."

const (
	maxAttributeValue = 64 << 10
	maxMetadata       = 16 << 10 // bytes that one entry's metadata may have, to be told of
)

// text makes a name fit for the protocol.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// stat tells of a path, as the user on whose thread it runs.
func (o *owners) stat(path string) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Entry{}, failed("look at", path, err)
	}
	return o.entry(path, path, &st), nil
}

// entry tells of what was found at a path, under the path that the caller knows it by.
func (o *owners) entry(path, shown string, st *unix.Stat_t) Entry {
	mode := fileMode(st.Mode)
	e := Entry{
		Name: text(filepath.Base(shown)), Path: text(shown), Type: typeOf(mode), Mode: uint32(mode.Perm()), Size: st.Size,
		Permissions: mode.String(), Owner: text(o.user(st.Uid)), Group: text(o.group(st.Gid)), Modified: time.Unix(st.Mtim.Unix()),
	}
	switch e.Type {
	case Symlink:
		e.follow(path)
	case File, Directory:
		e.Metadata = metadata(path)
	}
	return e
}

// follow tells where a symbolic link leads.
func (e *Entry) follow(path string) {
	target, err := filepath.EvalSymlinks(path)
	var st unix.Stat_t
	if err == nil && unix.Stat(target, &st) == nil {
		mode := fileMode(st.Mode)
		e.Type, e.Mode = typeOf(mode), uint32(mode.Perm())
	} else if target, err = os.Readlink(path); err != nil {
		target = path // it is gone already
	} else if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	target = text(target)
	e.Target = &target
}

func typeOf(mode fs.FileMode) Type {
	switch mode.Type() {
	case 0:
		return File
	case fs.ModeDir:
		return Directory
	case fs.ModeSymlink:
		return Symlink
	}
	return Other
}

// fileMode converts the kernel's mode.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	return mode
}

// metadata reads the extended attributes of a path that are metadata, as far as they fit. A file system that has none is fine.
func metadata(path string) map[string]string {
	size, err := unix.Llistxattr(path, nil)
	if err != nil || size <= 0 {
		return nil
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(path, list); err != nil {
		return nil
	}
	var m map[string]string
	total := 0
	for name := range bytes.SplitSeq(list[:size], []byte{0}) {
		key, ok := strings.CutPrefix(string(name), MetadataPrefix)
		if !ok {
			continue
		}
		value, err := attribute(path, string(name))
		if total += len(key) + len(value); err != nil || total > maxMetadata {
			continue
		}
		if m == nil {
			m = map[string]string{}
		}
		m[text(key)] = text(string(value))
	}
	return m
}

func attribute(path, name string) ([]byte, error) {
	value := make([]byte, 256)
	size, err := unix.Lgetxattr(path, name, value)
	if err == unix.ERANGE {
		value = make([]byte, maxAttributeValue)
		size, err = unix.Lgetxattr(path, name, value)
	}
	if err != nil {
		return nil, err
	}
	return value[:size], nil
}
