package process

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// defaultPath is the PATH of a command that isn't given one.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what the command gets, sorted by name, and its PATH. Nothing of envd's own environment is in it.
func (s *Spec) environment() (env []string, path string) {
	vars := map[string]string{"PATH": defaultPath, "HOME": s.User.Home, "USER": s.User.Name, "LOGNAME": s.User.Name}
	maps.Copy(vars, s.Base)
	maps.Copy(vars, s.Env)
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env, vars["PATH"]
}

// folder is where the command starts: an absolute path that is a folder now.
func (s *Spec) folder() (string, error) {
	dir := s.Cwd
	switch {
	case dir == "", dir == "~":
		dir = s.User.Home
	case strings.HasPrefix(dir, "~/"):
		dir = filepath.Join(s.User.Home, dir[2:])
	case strings.HasPrefix(dir, "~"):
		return "", fault.New(errs.ErrInvalid, "cwd '%s' names another user's home: give its path", dir)
	case !filepath.IsAbs(dir):
		dir = filepath.Join(s.User.Home, dir)
	}
	st, err := os.Stat(dir)
	switch {
	case err == nil && st.IsDir():
		return dir, nil
	case err == nil:
		return "", fault.New(errs.ErrInvalid, "cwd '%s' is not a directory", dir)
	case s.Cwd == "":
		return "/", nil // a user whose home was never made
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(errs.ErrInvalid, "cwd '%s' does not exist", dir)
	}
	return "", fault.New(errs.ErrInvalid, "cwd '%s': %v", dir, errors.Unwrap(err))
}

// executable finds a command by its name in a PATH. A command with a slash is a path already, relative to the folder that
// the command starts in; whether it can be run, the kernel says.
func executable(cmd, path string) (string, error) {
	if strings.Contains(cmd, "/") {
		return cmd, nil
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue // what a folder of the guest's choosing holds is not looked for by a name
		}
		file := filepath.Join(dir, cmd)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fault.New(errs.ErrInvalid, "command '%s' not found", cmd)
}
