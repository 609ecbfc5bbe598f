package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// builders is how many test binaries are built side by side: linking takes memory, and the go command uses every core itself.
const builders = 2

// binaryName is a test binary's, in its package's folder.
const binaryName = "host.test"

// Folder is a package's folder below the one that Build filled.
func (p Package) Folder(root string) string { return filepath.Join(root, p.Name) }

// Binary is the test binary's path below the folder that Build filled.
func (p Package) Binary(root string) string { return filepath.Join(p.Folder(root), binaryName) }

// Build builds the test binaries of packages, static ones, into folders of their own below root, each with a copy of its
// package's testdata.
func Build(ctx context.Context, root string, packages []Package) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(builders)
	for _, p := range packages {
		group.Go(func() error {
			if err := os.MkdirAll(p.Folder(root), 0o755); err != nil {
				return err
			}
			if err := buildOne(ctx, root, p); err != nil {
				return err
			}
			data := filepath.Join(p.Dir, "testdata")
			if _, err := os.Stat(data); err != nil {
				return nil
			}
			return os.CopyFS(filepath.Join(p.Folder(root), "testdata"), os.DirFS(data))
		})
	}
	return group.Wait()
}

func buildOne(ctx context.Context, root string, p Package) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-tags", Tag, "-ldflags=-s -w", "-o", p.Binary(root), p.ImportPath)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the host tests of %s: %w\n%s", p.Name, err, out)
	}
	return nil
}
