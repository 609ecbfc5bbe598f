package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
)

// verify hashes the files of a build whose manifest and map are right already, and then seals it. A file that is not as
// it was written is errs.ErrCorrupt.
func (b *Build) verify(ctx context.Context) error {
	dir := b.Path("")
	before, stampErr := quietStamps(ctx, dir)
	if err := checkWhole(dir, manifest.VMState, b.Manifest.Files[manifest.VMState]); err != nil {
		return err
	}
	if err := checkChunks(ctx, dir, manifest.Memory, b.Manifest.Files[manifest.Memory], memoryChunk(b.Map, b.ID)); err != nil {
		return err
	}
	if err := checkChunks(ctx, dir, manifest.Disk, b.Manifest.Files[manifest.Disk], plainChunk); err != nil {
		return err
	}
	if stampErr == nil {
		seal(dir, before)
	}
	return nil
}

// checkWhole checks a file that has one digest. Its size bounds what is read.
func checkWhole(dir, name string, want manifest.File) error {
	f, err := openFile(dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	if err := checkSize(f, name, want.Size); err != nil {
		return err
	}
	got, err := sumWhole(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got.SHA256 != want.SHA256 || got.Size != want.Size {
		return fmt.Errorf("%s: sha256 is %s, want %s: %w", name, got.SHA256, want.SHA256, errs.ErrCorrupt)
	}
	return nil
}

func checkSize(f *os.File, name string, want int64) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if info.Size() != want {
		return fmt.Errorf("%s: %d bytes, want %d: %w", name, info.Size(), want, errs.ErrCorrupt)
	}
	return nil
}

// sumWhole hashes a file from its start.
func sumWhole(f *os.File) (manifest.File, error) {
	h := sha256.New()
	n, err := io.Copy(h, f)
	return manifest.File{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// checkChunks checks a sparse file that has a digest for each chunk with data.
func checkChunks(ctx context.Context, dir, name string, want manifest.File, sum chunkSum) error {
	f, err := openFile(dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	if err := checkSize(f, name, want.Size); err != nil {
		return err
	}
	got, err := sumChunks(ctx, f, sum)
	if err == nil {
		err = compareChunks(got, want.Chunks)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func compareChunks(got, want []manifest.Chunk) error {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || (i < len(want) && want[i].Offset < got[i].Offset):
			return fmt.Errorf("chunk at byte %d is missing: %w", want[i].Offset, errs.ErrCorrupt)
		case i >= len(want) || got[i].Offset < want[i].Offset:
			return fmt.Errorf("chunk at byte %d has data, and had none: %w", got[i].Offset, errs.ErrCorrupt)
		case got[i] != want[i]:
			return fmt.Errorf("chunk at byte %d: sha256 of %d bytes is %s, want %s of %d: %w", got[i].Offset,
				got[i].Bytes, got[i].SHA256, want[i].SHA256, want[i].Bytes, errs.ErrCorrupt)
		}
	}
	return nil
}

// chunkSum hashes the piece of a file at an offset; of one that has nothing to keep, the result has no bytes.
type chunkSum func(offset int64, piece []byte) (manifest.Chunk, error)

// sumChunks hashes the chunks of a file that have data.
func sumChunks(ctx context.Context, f *os.File, sum chunkSum) ([]manifest.Chunk, error) {
	var chunks []manifest.Chunk
	buf := make([]byte, manifest.ChunkSize)
	err := sparse.Walk(ctx, f, manifest.ChunkSize, func(start, end int64) error {
		for at := start; at < end; at += manifest.ChunkSize {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			piece := buf[:min(manifest.ChunkSize, end-at)]
			if _, err := f.ReadAt(piece, at); errors.Is(err, io.EOF) {
				return fmt.Errorf("became shorter: %w", errs.ErrCorrupt)
			} else if err != nil {
				return err
			}
			c, err := sum(at, piece)
			if err != nil {
				return err
			}
			if c.Bytes > 0 {
				chunks = append(chunks, c)
			}
		}
		return nil
	})
	return chunks, err
}

// zeroChunk is an array so that it takes no memory: nobody writes to it.
var zeroChunk [manifest.ChunkSize]byte

// plainChunk takes the whole piece; zeros and holes are the same.
func plainChunk(offset int64, piece []byte) (manifest.Chunk, error) {
	if bytes.Equal(piece, zeroChunk[:len(piece)]) {
		return manifest.Chunk{}, nil
	}
	return manifest.Chunk{Offset: offset, Bytes: int64(len(piece)), SHA256: manifest.Digest(piece)}, nil
}

// memoryChunk takes the pages that a build keeps, in order, as the scan does. All else must be zero.
func memoryChunk(m *blockmap.Map, build string) chunkSum {
	return func(offset int64, piece []byte) (manifest.Chunk, error) {
		h := sha256.New()
		c := manifest.Chunk{Offset: offset}
		for r := range m.Within(offset/blockmap.PageSize, int64(len(piece))/blockmap.PageSize) {
			part := piece[r.Start*blockmap.PageSize-offset : r.End()*blockmap.PageSize-offset]
			if r.Build == build {
				_, _ = h.Write(part) // a hash never fails
				c.Bytes += int64(len(part))
			} else if !bytes.Equal(part, zeroChunk[:len(part)]) {
				return c, fmt.Errorf("chunk at byte %d has data in pages %d to %d, which the build does not keep: %w", offset, r.Start, r.End()-1, errs.ErrCorrupt)
			}
		}
		c.SHA256 = hex.EncodeToString(h.Sum(nil))
		return c, nil
	}
}
