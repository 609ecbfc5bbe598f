package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ulikunitz/xz"

	"wrenn.dev/wrenn/images/internal/bzimage"
	"wrenn.dev/wrenn/images/internal/ext4"
	"wrenn.dev/wrenn/images/internal/initramfs"
	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/init/modules"
)

// kernelFormat changes when the parts are made in another way from the same inputs.
const kernelFormat = "1"

// maxModule bounds a decompressed module.
const maxModule = 64 << 20

// kernelParts are made of Debian's kernel package, in a folder of the build cache.
type kernelParts struct{ dir, version string }

func (k kernelParts) vmlinux() string { return filepath.Join(k.dir, "vmlinux") }
func (k kernelParts) modules() string { return filepath.Join(k.dir, "modules.ext4") }

// first is the folder of the modules for the initramfs, in order.
func (k kernelParts) first() string { return filepath.Join(k.dir, "first") }

func (b *builder) kernel(ctx context.Context) (kernelParts, error) {
	key := new(buildcache.Key).Add(kernelFormat, debian.Suite, kernelPackage).Add(firstModules...)
	dir, err := buildcache.Get(ctx, "guest-kernel", key, b.makeKernel)
	if err != nil {
		return kernelParts{}, err
	}
	version, err := os.ReadFile(filepath.Join(dir, "version"))
	return kernelParts{dir: dir, version: string(version)}, err
}

// makeKernel fills dir from Debian's package.
func (b *builder) makeKernel(ctx context.Context, dir string) error {
	tree := filepath.Join(dir, "tree")
	err := b.steps.do("kernel package", func() error {
		return debian.Bootstrap(ctx, debian.Options{
			Variant: "extract", Include: []string{kernelPackage, "kmod"}, Dir: tree, Log: b.debianLog, Mode: "root",
			Skip: []string{"chroot/mount"},
		})
	})
	if err != nil {
		return err
	}
	return b.steps.do("kernel, its modules' file system", func() error {
		if err := b.fillKernel(ctx, kernelParts{dir: dir}, tree); err != nil {
			return err
		}
		return os.RemoveAll(tree)
	})
}

func (b *builder) fillKernel(ctx context.Context, k kernelParts, tree string) error {
	images, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%d kernels in package %s, want one: %w", len(images), kernelPackage, errs.ErrInvalid)
	}
	info, err := os.Stat(images[0])
	if err != nil {
		return err
	}
	image, err := os.ReadFile(images[0])
	if err != nil {
		return err
	}
	kernel, err := bzimage.Parse(image)
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.vmlinux(), kernel.ELF, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(k.dir, "version"), []byte(kernel.Version), 0o644); err != nil {
		return err
	}
	lib := filepath.Join(tree, "usr/lib/modules")
	if err := index(ctx, tree, kernel.Version); err != nil {
		return err
	}
	if err := copyFirst(filepath.Join(lib, kernel.Version), k.first()); err != nil {
		return err
	}
	return b.moduleImage(ctx, lib, k.modules(), info.ModTime())
}

// index runs depmod, which the package's own script would have done. It looks for /lib, which only an installed tree has.
func index(ctx context.Context, tree, version string) error {
	link := filepath.Join(tree, "lib")
	if have, err := exists(link); err != nil {
		return err
	} else if !have {
		if err := os.Symlink("usr/lib", link); err != nil {
			return err
		}
	}
	return debian.Run(ctx, tree, "depmod", "-b", tree, version)
}

// copyFirst decompresses the modules of the initramfs into dir, in files whose names sort in the order to load them.
func copyFirst(lib, dir string) error {
	f, err := os.Open(filepath.Join(lib, "modules.dep"))
	if err != nil {
		return err
	}
	defer f.Close()
	deps, err := modules.ParseDeps(f)
	if err != nil {
		return err
	}
	order, err := deps.Order(firstModules...)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i, name := range order {
		data, err := decompress(filepath.Join(lib, name))
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", i, modules.Name(name))), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// decompress reads a module file, compressed with xz or not at all.
func decompress(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil || strings.HasSuffix(path, ".ko") {
		return data, err
	}
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxModule))
}

// moduleImage makes the file system that is mounted at /lib/modules.
func (b *builder) moduleImage(ctx context.Context, lib, out string, epoch time.Time) error {
	tools, err := b.tools(ctx)
	if err != nil {
		return err
	}
	var room int64
	err = filepath.WalkDir(lib, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		const block, inode = 4096, 256
		room += (info.Size()+block-1)/block*block + inode
		return err
	})
	if err != nil {
		return err
	}
	const overhead, alignment = 2 << 20, 1 << 20
	size := (room + room/20 + overhead) / alignment * alignment
	spec := ext4.Spec{Label: "wrenn-modules", Size: size, Epoch: epoch, Sealed: true}
	return ext4.Make(ctx, tools, out, spec, func(w io.Writer) error { return archive(w, lib, epoch) })
}

// archive writes a folder of files that belong to root and are all equally old.
func archive(w io.Writer, dir string, epoch time.Time) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./" + name + "/", Mode: 0o755, ModTime: epoch})
		}
		if !d.Type().IsRegular() { // the "build" link leads to headers that are not there
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: 0o644, Size: int64(len(data)), ModTime: epoch}
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return out.Close()
}

// initramfs writes the guest's initial file system.
func (b *builder) initramfs(out string, k kernelParts) error {
	init, err := os.ReadFile(b.ramdisk)
	if err != nil {
		return err
	}
	files, err := os.ReadDir(k.first())
	if err != nil {
		return err
	}
	var mods []initramfs.Module
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(k.first(), f.Name()))
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(f.Name(), "-")
		name = modules.Name(name)
		mods = append(mods, initramfs.Module{Name: name, Data: data, Optional: slices.Contains(optionalModules, name)})
	}
	w, err := os.Create(out)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := initramfs.Write(w, init, mods); err != nil {
		return err
	}
	return w.Close()
}
