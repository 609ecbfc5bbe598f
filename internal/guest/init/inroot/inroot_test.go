package inroot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func TestDir(t *testing.T) {
	for _, tc := range []struct {
		name  string
		dirs  []string
		links map[string]string // link → target
		ask   string
		want  string // below the root
		err   error
	}{
		{name: "there", dirs: []string{"lib/modules"}, ask: "/lib/modules", want: "lib/modules"},
		{name: "made", ask: "lib/modules", want: "lib/modules"},
		{name: "the root", ask: "/", want: "."},
		{name: "merged usr", dirs: []string{"usr/lib"}, links: map[string]string{"lib": "usr/lib"}, ask: "/lib/modules", want: "usr/lib/modules"},
		{name: "absolute link", dirs: []string{"usr/lib"}, links: map[string]string{"lib": "/usr/lib"}, ask: "lib/modules", want: "usr/lib/modules"},
		{name: "link upwards", dirs: []string{"etc"}, links: map[string]string{"lib": "../../../etc"}, ask: "lib/modules", want: "etc/modules"},
		{name: "dots", dirs: []string{"lib"}, ask: "../../lib/../lib/modules", want: "lib/modules"},
		{name: "link to nothing", links: map[string]string{"lib": "/nowhere"}, ask: "lib/modules", err: errs.ErrFailedPrecondition},
		{name: "loop", links: map[string]string{"lib": "lib"}, ask: "lib/modules", err: unix.ELOOP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			for _, d := range tc.dirs {
				must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
			}
			for link, target := range tc.links {
				must(t, os.Symlink(target, filepath.Join(root, link)))
			}
			rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			must(t, err)
			defer unix.Close(rootFD)
			fd, err := Dir(rootFD, tc.ask)
			if tc.err != nil {
				if !errors.Is(err, tc.err) {
					t.Fatalf("Dir = %v, want %v", err, tc.err)
				}
				return
			}
			must(t, err)
			defer unix.Close(fd)
			var got, want unix.Stat_t
			must(t, unix.Fstat(fd, &got))
			must(t, unix.Stat(filepath.Join(root, tc.want), &want))
			if got.Ino != want.Ino || got.Dev != want.Dev {
				t.Errorf("Dir(%q) is not %s", tc.ask, tc.want)
			}
		})
	}
}

func TestDirOnAFile(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "lib"), nil, 0o600))
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(rootFD)
	if _, err := Dir(rootFD, "lib/modules"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("Dir = %v, want ENOTDIR", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
