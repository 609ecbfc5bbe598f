package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
)

// Build is one generation that is whole. It never changes.
type Build struct {
	// ID is the build's.
	ID string
	// Manifest is its document, Digest the sha256 of it in hex.
	Manifest *manifest.Manifest
	Digest   string
	// Map says where each page of the memory is.
	Map *blockmap.Map

	root string
}

// Path is where one of the build's files is: manifest.VMState, manifest.Disk, … Give it to others as an open file, a bind mount
// or a copy: another hard link would change the file's ctime, and with it void the seal.
func (b *Build) Path(name string) string { return filepath.Join(b.root, b.ID, name) }

// MemoryPath is where the memory file of a build that the map refers to is.
func (b *Build) MemoryPath(build string) string { return filepath.Join(b.root, build, manifest.Memory) }

// Open returns a build after it has made sure that each of its files, and of the builds that it needs, is what was written:
// by the seal that an earlier look left, or by hashing them all. It fails with errs.ErrNotFound when there is no such build,
// and with errs.ErrCorrupt and the file, and the chunk of it, that is not right.
func (s *Store) Open(ctx context.Context, build string) (*Build, error) {
	return s.open(ctx, build, sealed)
}

// Verify hashes every file of a build and of the builds that it needs, whatever their seals say. It fails as Open does.
func (s *Store) Verify(ctx context.Context, build string) error {
	_, err := s.open(ctx, build, func(string) bool { return false })
	return err
}

// open loads a build and those that it needs; the files of one that is not trusted are hashed.
func (s *Store) open(ctx context.Context, build string, trusted func(dir string) bool) (*Build, error) {
	if err := blockmap.CheckBuildID(build); err != nil {
		return nil, err
	}
	if there, err := s.exists(build); err != nil {
		return nil, err
	} else if !there {
		return nil, fmt.Errorf("build %s: %w", build, errs.ErrNotFound)
	}
	b, err := s.load(ctx, build, trusted)
	if err != nil {
		return nil, err
	}
	sources := map[string]*Build{b.ID: b}
	for _, n := range b.Manifest.Needs {
		source, err := s.load(ctx, n.Build, trusted)
		if err != nil {
			return nil, fmt.Errorf("build %s needs another: %w", build, err)
		}
		if source.Digest != n.Manifest {
			return nil, fmt.Errorf("build %s needs %s with a manifest of digest %s, not %s: %w", build, n.Build, n.Manifest, source.Digest, errs.ErrCorrupt)
		}
		sources[n.Build] = source
	}
	return b, b.checkSources(sources)
}

// checkSources tells whether every page is kept where the map says.
func (b *Build) checkSources(sources map[string]*Build) error {
	for r := range b.Map.Ranges() {
		if r.Zero() {
			continue
		}
		source := sources[r.Build].Map
		if r.End() > source.Pages() {
			return fmt.Errorf("build %s: pages to %d are of %s, which has %d: %w", b.ID, r.End(), r.Build, source.Pages(), errs.ErrCorrupt)
		}
		for own := range source.Within(r.Start, r.Count) {
			if own.Build != r.Build {
				return fmt.Errorf("build %s: page %d is not kept by %s: %w", b.ID, own.Start, r.Build, errs.ErrCorrupt)
			}
		}
	}
	return nil
}

// load reads a build's manifest and map, and checks its other files unless they are trusted.
func (s *Store) load(ctx context.Context, build string, trusted func(dir string) bool) (*Build, error) {
	dir := s.dir(build)
	m, digest, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	b := &Build{ID: build, Manifest: m, Digest: digest, root: s.root}
	if b.Map, err = readMap(dir, m); err != nil {
		return nil, fmt.Errorf("build %s: %w", build, err)
	}
	if trusted(dir) {
		return b, nil
	}
	if err := b.verify(ctx); err != nil {
		return nil, fmt.Errorf("build %s: %w", build, err)
	}
	return b, nil
}

// readManifest reads the manifest of the build in dir.
func readManifest(dir string) (*manifest.Manifest, string, error) {
	build := filepath.Base(dir)
	f, err := openFile(dir, manifest.Name)
	if err != nil {
		return nil, "", fmt.Errorf("build %s: %w", build, err)
	}
	defer f.Close()
	m, digest, err := manifest.Read(f)
	if err != nil {
		return nil, "", fmt.Errorf("build %s: %w", build, err)
	}
	if m.Build != build {
		return nil, "", fmt.Errorf("build %s: its manifest is of %s: %w", build, m.Build, errs.ErrCorrupt)
	}
	return m, digest, nil
}

// readMap reads the block map of the build in dir and checks it against the manifest.
func readMap(dir string, m *manifest.Manifest) (*blockmap.Map, error) {
	if err := checkWhole(dir, manifest.MemoryMap, m.Files[manifest.MemoryMap]); err != nil {
		return nil, err
	}
	f, err := openFile(dir, manifest.MemoryMap)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	blocks, err := blockmap.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifest.MemoryMap, err)
	}
	return blocks, checkMap(blocks, m)
}

// checkMap tells whether a map is that of the manifest's machine, of the builds that it needs, and of pages that are at
// their own offset, as Firecracker writes them and the digests take them.
func checkMap(blocks *blockmap.Map, m *manifest.Manifest) error {
	if blocks.Pages() != m.Machine.Pages() {
		return fmt.Errorf("%s is of %d pages, the machine has %d: %w", manifest.MemoryMap, blocks.Pages(), m.Machine.Pages(), errs.ErrCorrupt)
	}
	needed := map[string]bool{}
	for _, n := range m.Needs {
		needed[n.Build] = true
	}
	for _, id := range blocks.Builds() {
		if id != m.Build && !needed[id] {
			return fmt.Errorf("%s refers to %s, which the manifest doesn't: %w", manifest.MemoryMap, id, errs.ErrCorrupt)
		}
	}
	for r := range blocks.Ranges() {
		if !r.Zero() && r.Offset != r.Start*blockmap.PageSize {
			return fmt.Errorf("%s has page %d at byte %d: %w", manifest.MemoryMap, r.Start, r.Offset, errs.ErrCorrupt)
		}
	}
	return nil
}

// Usage is how many bytes of the disk a build's files take; holes are free. It fails with errs.ErrNotFound.
func (s *Store) Usage(build string) (int64, error) {
	if err := blockmap.CheckBuildID(build); err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(s.dir(build))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("build %s: %w", build, errs.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	var total int64
	for _, e := range entries {
		n, err := sparse.Used(filepath.Join(s.dir(build), e.Name()))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}
