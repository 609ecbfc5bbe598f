// Package rootdisk makes what the emulated host boots from, out of Debian's packages and the agent: kernel, initramfs, root
// disk; and the disks that carry folders of this machine into it. Nothing is mounted and no package's script is run.
package rootdisk

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/test/kvmhost/layout"
)

// packages are what is on the root disk: the kernel, what a host of sandboxes has, and what tests look at it with.
var packages = []string{
	"linux-image-cloud-amd64",
	"base-files", "base-passwd", "bash", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "diffutils", "tar", "gzip", "xz-utils",
	"util-linux", "mount", "kmod", "procps", "psmisc", "hostname", "ncurses-base", "libc-bin", "less",
	"iproute2", "iputils-ping", "nftables", "dmsetup", "e2fsprogs", "xfsprogs",
	"ca-certificates", "curl", "netcat-openbsd", "socat", "strace", "lsof",
	"systemd",
	"postgresql-17", // wrenn up runs it
}

// recipe is raised when the same packages are made into something else.
const recipe = "5"

// rootBytes is the size of the root disk: room enough for /tmp. It is sparse.
const rootBytes = 8 << 30

// Files are the files that the emulated host boots from, read-only to everybody.
type Files struct {
	Tools   string // the tree of tools, with QEMU
	Kernel  string // a bzImage
	Root    string // an ext4 image
	Modules string // a folder of the kernel modules that the root disk itself needs, named in their order
}

// Make returns the files from the build cache and makes them first when they are not there: half a minute for the tools and
// as much for the disk. Log gets the progress; nil drops it.
func Make(ctx context.Context, log io.Writer) (Files, error) {
	tools, err := debian.ToolTree(ctx, log)
	if err != nil {
		return Files{}, err
	}
	key := new(buildcache.Key).Add(recipe, debian.Suite).Add(packages...).Add(layout.Modules...)
	dir, err := buildcache.Get(ctx, "kvmhost-root", key, func(ctx context.Context, dir string) error {
		return makeRoot(ctx, tools, dir, log)
	})
	if err != nil {
		return Files{}, err
	}
	return filesIn(tools, dir), nil
}

func filesIn(tools, dir string) Files {
	return Files{
		Tools:   tools,
		Kernel:  filepath.Join(dir, "vmlinuz"),
		Root:    filepath.Join(dir, "root.img"),
		Modules: filepath.Join(dir, "modules"),
	}
}

func makeRoot(ctx context.Context, tools, dir string, log io.Writer) error {
	tree := filepath.Join(dir, "tree")
	if err := debian.Bootstrap(ctx, debian.Options{Variant: "extract", Include: packages, Dir: tree, Log: log}); err != nil {
		return err
	}
	files := filesIn(tools, dir)
	if err := takeKernel(ctx, tree, files); err != nil {
		return err
	}
	if err := finish(ctx, tree); err != nil {
		return err
	}
	if err := makeExt4(ctx, tools, files.Root, tree, rootBytes); err != nil {
		return err
	}
	return os.RemoveAll(tree)
}

// one returns the one path below tree that matches a pattern.
func one(tree, pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(tree, pattern))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s has %d of %s, not one", tree, len(found), pattern)
	}
	return found[0], nil
}
