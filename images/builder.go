package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/template"
)

// builder makes one template.
type builder struct {
	recipe              recipe
	out                 string // the store's folder
	envd, init, ramdisk string // binaries; those that are empty are built
	steps               *steps
	debianLog           io.Writer
}

// pruneAge keeps a store's unused files long enough for whoever still uses the template they were of.
const pruneAge = 6 * time.Hour

// build makes what is missing and returns the template as it is in the store.
func (b *builder) build(ctx context.Context) (template.Template, error) {
	work, err := os.MkdirTemp("", "wrenn-images-")
	if err != nil {
		return template.Template{}, err
	}
	defer os.RemoveAll(work)

	var kernel kernelParts
	var packages string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.binaries(gctx, work) })
	g.Go(func() (err error) {
		kernel, err = b.kernel(gctx)
		return err
	})
	g.Go(func() (err error) {
		packages, err = b.packages(gctx)
		return err
	})
	g.Go(func() error {
		_, err := b.tools(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return template.Template{}, err
	}
	inputs, err := b.inputs(kernel.dir, packages)
	if err != nil {
		return template.Template{}, err
	}
	store := template.Open(b.out)
	mark := filepath.Join(b.out, b.recipe.name+".inputs")
	if had, err := os.ReadFile(mark); err == nil && string(had) == inputs {
		if t, err := store.Get(b.recipe.name); err == nil {
			b.steps.print("   template %s: nothing changed", t.Name)
			return t, nil
		}
	}
	t, err := b.assemble(ctx, store, kernel, packages, work)
	if err != nil {
		return template.Template{}, err
	}
	if err := store.Prune(pruneAge); err != nil {
		return template.Template{}, err
	}
	return t, os.WriteFile(mark, []byte(inputs), 0o644)
}

// inputs is a hash of all that a template is made of.
func (b *builder) inputs(parts ...string) (string, error) {
	key := new(buildcache.Key).Add(fmt.Sprintf("%+v", b.recipe)).Add(parts...)
	for _, path := range []string{b.envd, b.init, b.ramdisk} {
		if err := key.AddFile(path); err != nil {
			return "", err
		}
	}
	self, err := os.Executable() // the rules by which it is made are in this program
	if err != nil {
		return "", err
	}
	if err := key.AddFile(self); err != nil {
		return "", err
	}
	return key.Sum(), nil
}

// binaries builds those of our programs that the caller did not give.
func (b *builder) binaries(ctx context.Context, work string) error {
	for _, p := range []struct {
		path *string
		pkg  string
	}{{&b.envd, "cmd/envd"}, {&b.init, "cmd/wrenn-init"}, {&b.ramdisk, "cmd/wrenn-init/ramdisk"}} {
		if *p.path != "" {
			continue
		}
		*p.path = filepath.Join(work, filepath.Base(p.pkg))
		if err := b.steps.do("build "+p.pkg, func() error { return goBuild(ctx, *p.path, p.pkg) }); err != nil {
			return err
		}
	}
	return nil
}

// goBuild builds a static binary that carries no trace of when, where and from which commit it was built: the image changes
// only when its content does.
func goBuild(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out,
		"wrenn.dev/wrenn/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w:\n%s", err, text)
	}
	return nil
}

// assemble makes the files that hold our own programs, and stores all of a template.
func (b *builder) assemble(ctx context.Context, store *template.Store, kernel kernelParts, packages, work string,
) (template.Template, error) {
	t := template.Template{
		Name: b.recipe.name, KernelVersion: kernel.version, Recipe: "images/" + b.recipe.name,
		VCPUs: b.recipe.vcpus, MemoryMiB: b.recipe.memoryMiB,
	}
	ramfs, rootfs := filepath.Join(work, "initramfs"), filepath.Join(work, "rootfs")
	if err := b.initramfs(ramfs, kernel); err != nil {
		return t, fmt.Errorf("initramfs: %w", err)
	}
	err := b.steps.do("root file system", func() (err error) {
		t.PackagesDigest, err = b.rootfs(ctx, packages, rootfs)
		return err
	})
	if err != nil {
		return t, err
	}
	err = b.steps.do("store the template", func() (err error) {
		for path, blob := range map[string]*template.Blob{
			rootfs: &t.Rootfs, ramfs: &t.Initramfs, kernel.vmlinux(): &t.Kernel, kernel.modules(): &t.Modules,
		} {
			if *blob, err = store.Add(ctx, path); err != nil {
				return err
			}
		}
		t, err = store.Put(ctx, t)
		return err
	})
	return t, err
}

// tools is the tree whose programs make file systems. Whoever asks first makes it.
func (b *builder) tools(ctx context.Context) (string, error) {
	return debian.ToolTree(ctx, b.debianLog)
}

// exists tells whether a file is there, and fails for any other reason than that it is not.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
