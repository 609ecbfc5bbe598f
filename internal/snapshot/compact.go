package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
)

// When a map is worth compacting: it refers to so many builds that a start checks and opens too many files, or it is in so
// many small pieces that reads ahead of a page fault find little beside it.
const (
	compactBuilds = 16
	compactRanges = 4096
	compactPages  = 16 // a piece, on average
)

// NeedsCompaction tells whether a build with such a map is better replaced by a compact one.
func NeedsCompaction(s blockmap.Stats) bool {
	return len(s.Stored) > compactBuilds || (s.Ranges > compactRanges && s.Pages/int64(s.Ranges) < compactPages)
}

// Compact makes a new build of the same frozen machine whose memory file holds all of the memory, so that it needs no other,
// and points those of refs that point to the old build to it. The old build stays as it is, for whoever has another
// reference to it. When refs are given and none points to the old build any more, the new one is not kept, and Compact fails
// with errs.ErrFailedPrecondition. Without refs, the caller uses SwapRef before the next GC.
//
// It hashes all that it reads, so that what went bad on disk does not get a good digest. It is work for the background: it
// reads and writes the whole memory and copies the disk's file, in small pieces.
func (s *Store) Compact(ctx context.Context, build string, refs ...Ref) (b *Build, err error) {
	id := blockmap.NewBuildID()
	g, err := s.begin(ctx, id, build)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Abort(ctx)) }()
	old, err := s.open(ctx, build, func(string) bool { return false })
	if err != nil {
		return nil, err
	}
	if err := g.copyFrom(ctx, old); err != nil {
		return nil, fmt.Errorf("compact build %s: %w", build, err)
	}
	moves := make([]move, len(refs))
	for i, r := range refs {
		moves[i] = move{ref: r, from: build}
	}
	m := old.Manifest
	b, _, err = g.commit(ctx, Info{Kind: m.Kind, Created: m.Created, Host: m.Host, Machine: m.Machine}, m.Parent, moves)
	return b, err
}

// copyFrom fills the staging with the files of a build and all of its memory.
func (g *Staging) copyFrom(ctx context.Context, old *Build) error {
	for _, name := range []string{manifest.VMState, manifest.Disk} {
		src, err := openFile(old.Path(""), name)
		if err != nil {
			return err
		}
		err = g.create(name, func(dst *os.File) error {
			if shared, err := sparse.Share(dst, src); shared || err != nil {
				return err
			}
			return sparse.Copy(ctx, dst, src)
		})
		if err = errors.Join(err, src.Close()); err != nil {
			return err
		}
	}
	pages := old.Pages()
	defer pages.Close()
	err := g.create(manifest.Memory, func(dst *os.File) error { return copyMemory(ctx, dst, old.Map, pages) })
	if err != nil {
		return err
	}
	return failpoint.Here(ctx, pointCompact)
}

// create makes a staged file.
func (g *Staging) create(name string, fill func(*os.File) error) error {
	f, err := os.OpenFile(g.Path(name), os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// copyMemory writes the pages that are not zero, each at its own offset, a chunk at a time.
func copyMemory(ctx context.Context, dst *os.File, blocks *blockmap.Map, pages *PageReader) error {
	if err := dst.Truncate(blocks.Pages() * blockmap.PageSize); err != nil {
		return err
	}
	const step = manifest.ChunkSize / blockmap.PageSize
	buf := make([]byte, manifest.ChunkSize)
	for r := range blocks.Ranges() {
		if r.Zero() {
			continue
		}
		for page := r.Start; page < r.End(); page += step {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			part := buf[:min(step, r.End()-page)*blockmap.PageSize]
			if err := pages.ReadPages(page, part); err != nil {
				return err
			}
			if _, err := dst.WriteAt(part, page*blockmap.PageSize); err != nil {
				return err
			}
		}
	}
	return nil
}
