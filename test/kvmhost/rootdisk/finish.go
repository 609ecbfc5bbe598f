package rootdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/build/debian"
	"wrenn.dev/wrenn/test/kvmhost/layout"
)

// rootModules are the modules that mounting the root disk takes.
var rootModules = []string{"virtio_blk"}

// takeKernel copies the kernel and the modules for the initramfs out of the tree, and indexes the tree's modules. Those that
// the host loads at its start are unpacked, which saves the emulation seconds.
func takeKernel(ctx context.Context, tree string, files Files) error {
	kernel, err := one(tree, "boot/vmlinuz-*")
	if err != nil {
		return err
	}
	if err := copyTo(files.Kernel, kernel); err != nil {
		return err
	}
	version := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	folder := filepath.Join(tree, "usr/lib/modules", version)
	paths, err := indexModules(ctx, tree, folder, append(rootModules, layout.Modules...))
	if err != nil {
		return err
	}
	for _, p := range paths {
		if strings.HasSuffix(p, ".xz") {
			if err := debian.Run(ctx, tree, "xz", "--decompress", filepath.Join(folder, p)); err != nil {
				return err
			}
		}
	}
	if paths, err = indexModules(ctx, tree, folder, rootModules); err != nil {
		return err
	}
	for i, p := range paths {
		if err := copyTo(filepath.Join(files.Modules, fmt.Sprintf("%02d-%s", i, filepath.Base(p))), filepath.Join(folder, p)); err != nil {
			return err
		}
	}
	return nil
}

// indexModules indexes a folder of modules and returns the paths in it of some and of all that they need, in order.
func indexModules(ctx context.Context, tree, folder string, names []string) ([]string, error) {
	if err := debian.Run(ctx, tree, "depmod", "-b", tree, filepath.Base(folder)); err != nil {
		return nil, err
	}
	index, err := os.ReadFile(filepath.Join(folder, "modules.dep"))
	if err != nil {
		return nil, err
	}
	return inOrder(index, names)
}

// inOrder returns the paths of modules and of all that they need, each after what it needs itself. The index is depmod's
// modules.dep: "path: path path", with what must be loaded first last. A name has underscores where its file has hyphens.
func inOrder(index []byte, names []string) ([]string, error) {
	needs := make(map[string][]string)
	for line := range bytes.Lines(index) {
		path, rest, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		if ok {
			name, _, _ := strings.Cut(filepath.Base(path), ".")
			needs[strings.ReplaceAll(name, "-", "_")] = append([]string{path}, strings.Fields(rest)...)
		}
	}
	var order []string
	seen := make(map[string]bool)
	for _, name := range names {
		chain, ok := needs[name]
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", name)
		}
		for i := len(chain) - 1; i >= 0; i-- {
			if !seen[chain[i]] {
				seen[chain[i]] = true
				order = append(order, chain[i])
			}
		}
	}
	return order, nil
}

// files that packages' scripts would have made, as far as this host needs them.
var texts = map[string]string{
	"etc/hostname":      "kvmhost\n",
	"etc/hosts":         "127.0.0.1 localhost kvmhost\n::1 localhost\n",
	"etc/resolv.conf":   "nameserver 10.0.2.3\n",
	"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	"etc/fstab":         "",
	"etc/machine-id":    strings.Repeat("0123456789abcdef", 2) + "\n", // without one, systemd enables whatever is there
	"root/.bashrc":      "PS1='kvmhost:\\w\\$ '\nalias ll='ls -l'\n",
}

var links = map[string]string{
	"etc/mtab":    "../proc/self/mounts",
	"var/run":     "/run",
	"var/lock":    "/run/lock",
	"usr/bin/sh":  "dash",
	"usr/bin/awk": "mawk",
	"usr/bin/nc":  "nc.openbsd",

	"etc/systemd/system/default.target": "/usr/lib/systemd/system/multi-user.target",
}

// masked are units of systemd that need what this host has not, or take seconds of its start for nothing.
var masked = []string{
	"systemd-logind.service", "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "getty.target", "ldconfig.service",
	"systemd-sysusers.service", "systemd-hwdb-update.service", "systemd-update-done.service", "systemd-journal-catalog-update.service",
	"systemd-networkd.service", "systemd-networkd.socket", "nftables.service", // the network is up, and is what tests make of it
}

// users are those that packages' scripts would have made.
var users = map[string]string{
	"passwd": "postgres:x:101:101::/var/lib/postgresql:/bin/sh\n",
	"group":  "postgres:x:101:\n",
}

var folders = []string{"images", "opt/wrenn/bin", "opt/wrenn/tests", "out", "var/lib/wrenn", "root", "proc", "sys", "dev", "run", "tmp", "var/tmp"}

// unused is what nobody reads on the root disk, by far the most of it.
var unused = []string{"boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n", "usr/share/info", "var/lib/apt", "var/cache"}

// finish makes a tree of unpacked packages into the root of a host.
func finish(ctx context.Context, tree string) error {
	for _, dir := range unused {
		if err := os.RemoveAll(filepath.Join(tree, dir)); err != nil {
			return err
		}
	}
	for _, dir := range folders {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(tree, dir), 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(tree, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	for _, name := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(tree, "etc/systemd/system", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"passwd", "group"} {
		if err := copyTo(filepath.Join(tree, "etc", name), filepath.Join(tree, "usr/share/base-passwd", name+".master")); err != nil {
			return err
		}
	}
	for name, line := range users {
		if err := appendTo(filepath.Join(tree, "etc", name), line); err != nil {
			return err
		}
	}
	if err := bundleCertificates(tree); err != nil {
		return err
	}
	return debian.Run(ctx, tree, "ldconfig", "-r", tree)
}

// bundleCertificates writes the file of trusted certificates that TLS libraries read.
func bundleCertificates(tree string) error {
	certs, err := filepath.Glob(filepath.Join(tree, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for _, c := range certs {
		data, err := os.ReadFile(c)
		if err != nil {
			return err
		}
		bundle.Write(data)
	}
	dir := filepath.Join(tree, "etc/ssl/certs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), bundle.Bytes(), 0o644)
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func copyTo(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
