package rootdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cavaliergopher/cpio"
)

// agentPackage is the program that is init of the initramfs and everything after.
const agentPackage = "wrenn.dev/wrenn/test/kvmhost/agent"

// Initramfs builds the agent and writes an initramfs with it to path. The working folder must be in the module.
func Initramfs(ctx context.Context, f Files, path string) error {
	agent := path + ".agent"
	defer os.Remove(agent)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", agent, agentPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent of the emulated host, which takes the checkout as working folder: %w: %s", err, out)
	}
	modules, err := filepath.Glob(filepath.Join(f.Modules, "*"))
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	w := cpio.NewWriter(out)
	err = writeInitramfs(w, agent, modules)
	return errors.Join(err, w.Close(), out.Close())
}

func writeInitramfs(w *cpio.Writer, agent string, modules []string) error {
	for _, dir := range []string{"dev", "root", "modules"} {
		if err := w.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755}); err != nil {
			return err
		}
	}
	if err := addFile(w, "init", 0o755, agent); err != nil {
		return err
	}
	for _, m := range modules {
		if err := addFile(w, "modules/"+filepath.Base(m), 0o644, m); err != nil {
			return err
		}
	}
	return nil
}

func addFile(w *cpio.Writer, name string, mode cpio.FileMode, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | mode, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
