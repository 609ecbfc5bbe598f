package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

// firecracker looks at both binaries and at the known holes of their version.
func (h host) firecracker(ctx context.Context) []Item {
	f, items := h.binary(ctx, release.Firecracker, h.Firecracker)
	j, more := h.binary(ctx, release.Jailer, h.Jailer)
	items = append(items, more...)
	if f == nil || j == nil {
		return items
	}
	if f.Version != j.Version {
		return append(items, fail("jailer", fmt.Sprintf("firecracker is %v and jailer is %v", f.Version, j.Version), "install both from one release")...)
	}
	return append(items, h.holes(f.Version)...)
}

// binary looks at one of them. It is nil when it can't be used.
func (h host) binary(ctx context.Context, kind release.Kind, name string) (*release.Found, []Item) {
	install := fmt.Sprintf("install the official release %v and put it on the PATH, or give --%s", release.Recommended.Version, kind)
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, failed(string(kind), err, install)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, failed(string(kind), err, install)
	}
	found, err := release.Detect(ctx, kind, path)
	if err == nil {
		err = found.Version.Supported()
	}
	if err != nil {
		return nil, failed(string(kind), err, install)
	}
	detail := fmt.Sprintf("%v, %s", found.Version, path)
	switch found.Origin {
	case release.Official:
		return &found, ok(string(kind), "%s, official release", detail)
	case release.Package:
		return &found, warn(string(kind), fmt.Sprintf("%s, %s: not known to be the official build", detail, found.Origin), install)
	}
	return &found, warn(string(kind), detail+", not a build with a known checksum", install)
}

// holes are the version's known ones. One that is kept shut here is a warning all the same: what keeps it shut is a habit, and a
// fixed version is better.
func (h host) holes(v release.Version) []Item {
	var items []Item
	for _, a := range release.Advisories(v) {
		detail := fmt.Sprintf("%v has it: %s. Kept shut here: %s", v, a.Summary, a.Defence)
		fix := fmt.Sprintf("install %v", release.Recommended.Version)
		if a.ID == release.JailerSymlink {
			if err := h.jailBase(); err != nil {
				items = append(items, failed(a.ID, err, "take write permission from others on that folder, or "+fix)...)
				continue
			}
		}
		items = append(items, warn(a.ID, detail, fix)...)
	}
	if len(items) == 0 {
		return ok("advisories", "none is known of %v", v)
	}
	return items
}

// jailBase looks whether only root can write to the folder that jails are made in and to those above it, as far as they
// exist. A folder with the sticky bit is as good: nobody but root can rename what is root's in it.
func (h host) jailBase() error {
	path, err := filepath.Abs(filepath.Join(h.StateDir, "jail"))
	if err != nil {
		return err
	}
	for ; ; path = filepath.Dir(path) {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return err
		case st.Uid != 0 || st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0:
			return fmt.Errorf("%s can be written to by others than root: %w", path, errs.ErrFailedPrecondition)
		}
		if path == "/" || strings.TrimSpace(path) == "" {
			return nil
		}
	}
}
