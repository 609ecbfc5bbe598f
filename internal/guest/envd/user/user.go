// Package user finds the users of the guest in its own passwd and group files, without the C library, so that envd is
// one static binary in any image.
//
// The files belong to the guest. What they say decides under whom a process of the same guest runs, and nothing else.
package user

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// maxFile bounds how much of a file is read, in bytes.
const maxFile = 4 << 20

// maxGroups bounds a user's supplementary groups: the kernel takes no more.
const maxGroups = 65536

// User is whom a process runs as.
type User struct {
	Name     string
	UID, GID uint32
	// Groups are the supplementary groups, without GID.
	Groups []uint32
	// Home is an absolute path; nothing says that it exists.
	Home string
}

// DB reads the two files of a guest, anew at every call.
type DB struct {
	// Passwd and Group are paths: of /etc/passwd and /etc/group but in tests.
	Passwd, Group string
}

// System is the DB of the running system.
func System() DB { return DB{Passwd: "/etc/passwd", Group: "/etc/group"} }

// Lookup returns the user of a name. ErrNotFound when there is none.
func (db DB) Lookup(name string) (User, error) {
	text, err := read(db.Passwd)
	if err != nil {
		return User{}, err
	}
	u, ok := find(text, name)
	if !ok {
		return User{}, fmt.Errorf("user %q: %w", name, errs.ErrNotFound)
	}
	text, err = read(db.Group)
	if err != nil {
		return User{}, err
	}
	u.Groups = groups(text, u)
	return u, nil
}

// Default returns whom a process runs as when nobody is named: "user", or root in an image that has no such user. An image
// without any users still has root.
func (db DB) Default() (User, error) {
	for _, name := range []string{"user", "root"} {
		u, err := db.Lookup(name)
		if !errors.Is(err, errs.ErrNotFound) {
			return u, err
		}
	}
	return User{Name: "root", Home: "/"}, nil
}

// read returns a file's text; a file that is not there is empty.
func read(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(b), nil
}

// find looks for a name in a passwd file: name:password:uid:gid:comment:home:shell. Lines that are not of this form are
// passed over, as the C library does.
func find(passwd, name string) (User, bool) {
	if name == "" {
		return User{}, false
	}
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < 6 || f[0] != name {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if !ok1 || !ok2 || strings.ContainsRune(f[5], 0) {
			continue
		}
		home := f[5]
		if !strings.HasPrefix(home, "/") {
			home = "/"
		}
		return User{Name: name, UID: uid, GID: gid, Home: home}, true
	}
	return User{}, false
}

// groups collects the groups that have the user as a member: name:password:gid:member,member.
func groups(group string, u User) []uint32 {
	var ids []uint32
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), u.Name) {
			continue
		}
		id, ok := number(f[2])
		if ok && id != u.GID && !slices.Contains(ids, id) && len(ids) < maxGroups {
			ids = append(ids, id)
		}
	}
	return ids
}

// number reads an id. The highest means "no id" to the kernel and is refused.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}
