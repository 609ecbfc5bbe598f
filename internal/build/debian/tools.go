package debian

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/errs"
)

// toolPackages are in the tool tree. mkfs.ext4 loads libarchive when it is to fill a file system from a tar archive.
var toolPackages = []string{"qemu-system-x86", "e2fsprogs", "libarchive13t64", "xfsprogs"}

// trimHook leaves out of a tree what nobody reads in it.
const trimHook = `rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/info "$1"/var/cache/apt/*.bin`

// ToolTree is the folder of a Debian 13 tree with QEMU 10, mkfs.ext4 (which reads tar archives) and mkfs.xfs. It is made
// once, in about half a minute, and kept in the build cache. Command runs its programs. Log gets mmdebstrap's words when the
// tree is made; nil drops them.
func ToolTree(ctx context.Context, log io.Writer) (string, error) {
	o := Options{Variant: "apt", Include: toolPackages, CustomizeHooks: []string{trimHook}}
	key := new(buildcache.Key).Add(o.args(nil)...)
	dir, err := buildcache.Get(ctx, "debian-tools", key, func(ctx context.Context, dir string) error {
		o := o
		o.Dir, o.Log = filepath.Join(dir, "tree"), log
		return Bootstrap(ctx, o)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "tree"), nil
}

// loaderPath is the dynamic loader's place in a Debian tree for amd64.
const loaderPath = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"

// programDirs are where Command looks for a program in a tree.
var programDirs = []string{"usr/bin", "usr/sbin"}

// Command is the command that runs a program of a Debian tree on this machine, with the tree's own loader and libraries but
// no chroot: paths in args are this machine's. The program is the bare name of a binary in the tree ("mkfs.ext4"), not of a
// script. What the programs of the tool tree read from fixed paths (QEMU's firmware and modules, mke2fs.conf) they read from
// the tree. A program that is not there is an errs.ErrNotFound.
func Command(ctx context.Context, tree, program string, args ...string) (*exec.Cmd, error) {
	path, err := find(tree, program)
	if err != nil {
		return nil, err
	}
	argv := []string{"--library-path", strings.Join(libraryDirs(tree), ":"), path}
	if strings.HasPrefix(program, "qemu-system-") {
		argv = append(argv, "-L", filepath.Join(tree, "usr/share/qemu"), "-L", filepath.Join(tree, "usr/share/seabios"))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(tree, loaderPath), append(argv, args...)...)
	cmd.Env = append(os.Environ(),
		"LC_ALL=C.UTF-8",
		"MKE2FS_CONFIG="+filepath.Join(tree, "etc/mke2fs.conf"),
		"QEMU_MODULE_DIR="+filepath.Join(tree, "usr/lib/x86_64-linux-gnu/qemu"),
	)
	return cmd, nil
}

// Run runs a program of a Debian tree to its end. An error carries the end of its output.
func Run(ctx context.Context, tree, program string, args ...string) error {
	return RunInput(ctx, nil, tree, program, args...)
}

// RunInput is Run with stdin, which may be nil.
func RunInput(ctx context.Context, stdin io.Reader, tree, program string, args ...string) error {
	cmd, err := Command(ctx, tree, program, args...)
	if err != nil {
		return err
	}
	out := &tail{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w; the end of its output:\n%s", program, err, out)
	}
	return nil
}

func find(tree, program string) (string, error) {
	for _, dir := range programDirs {
		path := filepath.Join(tree, dir, program)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %q in %s: %w", program, tree, errs.ErrNotFound)
}

// libraryDirs are the folders of a tree's libraries: the architecture's, and those below it that libraries there name as
// absolute paths.
func libraryDirs(tree string) []string {
	lib := filepath.Join(tree, "usr/lib/x86_64-linux-gnu")
	return []string{lib, filepath.Join(lib, "pulseaudio"), filepath.Join(tree, "usr/lib")}
}
