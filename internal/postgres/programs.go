package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/lazyregexp"
)

// places are where distributions put the programs: Debian's and PGDG's packages leave them out of the PATH.
var places = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*"}

// oldest is the first release that has all that the store asks of it.
const oldest = 14

const installFix = "install PostgreSQL (on Debian: apt-get install postgresql), or give --database-url"

// installation is one PostgreSQL on the host.
type installation struct {
	bin   string
	major int
}

// programs is the folder of the programs that fit the data: of their release, or the newest when there are none yet.
func (c *Config) programs() (string, error) {
	found := installations(c.Bin)
	if len(found) == 0 {
		return "", errs.Field("postgres", fmt.Sprintf("there is no PostgreSQL %d or later on this machine", oldest), installFix)
	}
	made, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return found[0].bin, nil
	}
	if err != nil {
		return "", err
	}
	release := strings.TrimSpace(string(made))
	var have []string
	for _, i := range found {
		if strconv.Itoa(i.major) == release {
			return i.bin, nil
		}
		have = append(have, strconv.Itoa(i.major))
	}
	return "", fmt.Errorf("the data in %s are PostgreSQL %.20s's, and this machine has %s: install postgresql-%.20s, "+
		"or bring the data over with pg_upgrade: %w", c.data(), release, strings.Join(have, ", "), release, errs.ErrFailedPrecondition)
}

// installations are those on the host, newest first; of a folder, if one is named.
func installations(bin string) []installation {
	dirs := []string{bin}
	if bin == "" {
		dirs = nil
		for _, pattern := range places {
			match, _ := filepath.Glob(pattern) // the patterns are right
			dirs = append(dirs, match...)
		}
		if path, err := exec.LookPath("postgres"); err == nil {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				dirs = append(dirs, filepath.Dir(real))
			}
		}
	}
	var found []installation
	for _, dir := range dirs {
		if major := majorOf(dir); major >= oldest {
			found = append(found, installation{dir, major})
		}
	}
	slices.SortStableFunc(found, func(a, b installation) int { return cmp.Compare(b.major, a.major) })
	return found
}

var versionLine = lazyregexp.New(`^postgres \(PostgreSQL\) (\d{1,4})\D`)

// majorOf asks a folder's postgres what it is; 0 when there is none, or no initdb beside it.
func majorOf(dir string) int {
	if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output() //nolint:gosec // the host's own program
	if err != nil {
		return 0
	}
	m := versionLine().FindSubmatch(out)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(string(m[1])) // digits
	return major
}

// environment is what the programs get: nothing of ours, and no locale that may not be there.
func environment() []string { return []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"} }
