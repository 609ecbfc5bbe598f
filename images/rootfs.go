package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/images/internal/ext4"
	"wrenn.dev/wrenn/images/internal/roottar"
	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/internal/buildcache"
)

// packagesFormat changes when the packages are installed in another way from the same inputs.
const packagesFormat = "1"

// The files of a folder of installed packages: the tree, and when making it began.
const treeFile, beganFile = "root.tar", "began"

// injected is the folder of our own programs in the guest.
const injected = "usr/lib/wrenn/"

// moduleFolder is where the first stage mounts the modules. It would make the folder, but not in a root that is read-only.
const moduleFolder = "usr/lib/modules/"

// tiniInPackage is what Debian's package of tini has as a static binary.
const tiniInPackage = "usr/bin/tini-static"

// packages returns the folder of the recipe's installed packages.
func (b *builder) packages(ctx context.Context) (string, error) {
	key := new(buildcache.Key).Add(packagesFormat, debian.Suite)
	for _, part := range [][]string{b.recipe.packages, b.recipe.setUp, b.recipe.leaveOut, b.recipe.keep} {
		key.Add(strings.Join(part, "\n"))
	}
	return buildcache.Get(ctx, "guest-packages", key, func(ctx context.Context, dir string) error {
		return b.steps.do("Debian packages", func() error { return b.install(ctx, dir) })
	})
}

// install lets mmdebstrap install the packages, without mounting anything, and keeps the tree as an archive.
func (b *builder) install(ctx context.Context, dir string) error {
	began := strconv.FormatInt(time.Now().Unix(), 10)
	if err := os.WriteFile(filepath.Join(dir, beganFile), []byte(began), 0o644); err != nil {
		return err
	}
	tree, err := os.Create(filepath.Join(dir, treeFile))
	if err != nil {
		return err
	}
	defer tree.Close()
	o := debian.Options{
		Variant: "essential", Include: b.recipe.packages, Tar: tree, Log: b.debianLog, Mode: "root",
		Skip:           []string{"chroot/mount"},
		CustomizeHooks: b.recipe.setUp,
		AptOptions:     []string{`Acquire::Languages "none"`, `APT::Install-Recommends "false"`},
		DpkgOptions:    []string{"force-unsafe-io"}, // a tree that is lost in a power cut is made again
	}
	for _, path := range b.recipe.leaveOut {
		o.DpkgOptions = append(o.DpkgOptions, "path-exclude="+path)
	}
	for _, path := range b.recipe.keep {
		o.DpkgOptions = append(o.DpkgOptions, "path-include="+path)
	}
	if err := debian.Bootstrap(ctx, o); err != nil {
		return err
	}
	return tree.Close()
}

// rootfs makes the image of the root file system of installed packages and our programs. It returns the digest of the list of
// packages.
func (b *builder) rootfs(ctx context.Context, packages, out string) (string, error) {
	tools, err := b.tools(ctx)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(packages, treeFile)
	summary, err := scan(tree, filepath.Join(packages, beganFile))
	if err != nil {
		return "", err
	}
	files := []roottar.File{
		{Path: moduleFolder},
		{Path: injected + "tini", Mode: 0o755, Data: summary.Picked[tiniInPackage]},
	}
	for _, p := range []struct{ name, path string }{{"envd", b.envd}, {"init", b.init}} {
		data, err := os.ReadFile(p.path)
		if err != nil {
			return "", err
		}
		files = append(files, roottar.File{Path: injected + p.name, Mode: 0o755, Data: data})
		summary.Bytes += int64(len(data))
	}
	spec := ext4.Spec{Label: "wrenn-" + b.recipe.name, Size: b.recipe.size(summary), Epoch: summary.Epoch}
	err = ext4.Make(ctx, tools, out, spec, func(w io.Writer) error {
		r, err := os.Open(tree)
		if err != nil {
			return err
		}
		defer r.Close()
		return roottar.Write(w, r, summary, files)
	})
	return summary.PackagesDigest(), err
}

func scan(tree, beganFile string) (roottar.Summary, error) {
	text, err := os.ReadFile(beganFile)
	if err != nil {
		return roottar.Summary{}, err
	}
	began, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return roottar.Summary{}, fmt.Errorf("%s: %w", beganFile, err)
	}
	r, err := os.Open(tree)
	if err != nil {
		return roottar.Summary{}, err
	}
	defer r.Close()
	return roottar.Scan(r, time.Unix(began, 0), tiniInPackage)
}

// size is the image's, in bytes: what is in it, the recipe's spare room, and the file system's own.
func (r recipe) size(s roottar.Summary) int64 {
	const inode, journal, mib = 256, 64 << 20, 1 << 20
	used := s.Bytes + s.Files*inode + journal
	return max(used+used*int64(r.spare)/100, r.leastMiB*mib) / mib * mib
}
