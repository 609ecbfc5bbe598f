package filesystem

import (
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const (
	maxPath = 4096 // bytes; the kernel's PATH_MAX
	maxName = 255
)

// Resolve makes a path of a request absolute and clean: `~` and what is relative are below the user's home, and an empty path is
// the home. Nothing is looked up. ErrInvalid for what the kernel could not take.
func Resolve(u user.User, path string) (string, error) {
	switch {
	case strings.ContainsRune(path, 0):
		return "", invalid("a path can't contain a NUL byte")
	case len(path) > maxPath:
		return "", invalid("a path of %d bytes is longer than %d", len(path), maxPath)
	case path == "~" || strings.HasPrefix(path, "~/"):
		path = filepath.Join(u.Home, path[1:])
	case strings.HasPrefix(path, "~"):
		return "", invalid("path '%s' names another user's home: give its path, or put ./ before a name that begins with ~", path)
	case !filepath.IsAbs(path):
		path = filepath.Join(u.Home, path)
	}
	path = filepath.Clean(path)
	if len(path) >= maxPath {
		return "", invalid("a path of %d bytes is longer than %d", len(path), maxPath-1)
	}
	if len(filepath.Base(path)) > maxName {
		return "", invalid("a name of %d bytes is longer than %d", len(filepath.Base(path)), maxName)
	}
	return path, nil
}
