package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	"wrenn.dev/wrenn/internal/sparse"
)

// zeros stands for the content of holes. It is an array so that it takes no memory: nobody writes to it.
var zeros [1 << 20]byte

// copySparse copies src to the empty file dst, leaves out its holes, and returns the sha256 of the content and its length.
func copySparse(ctx context.Context, dst, src *os.File) (digest string, size int64, err error) {
	h := sha256.New()
	size, err = extents(ctx, src, h, func(r io.Reader, at int64) error {
		_, err := io.Copy(io.NewOffsetWriter(dst, at), r)
		return err
	})
	if err != nil {
		return "", 0, err
	}
	if err := dst.Truncate(size); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// hashFile is the sha256, in hex, of a file's content.
func hashFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = extents(ctx, f, h, func(r io.Reader, _ int64) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// extents hashes the whole content of f and gives its parts that are no holes to data, in pieces; it returns f's length.
func extents(ctx context.Context, f *os.File, h hash.Hash, data func(r io.Reader, at int64) error) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for at := int64(0); at < size; {
		start, end, err := sparse.Next(f, at, size)
		if err != nil {
			return 0, err
		}
		if err := hashZeros(ctx, h, start-at); err != nil {
			return 0, err
		}
		for at = start; at < end; {
			if err := context.Cause(ctx); err != nil {
				return 0, err
			}
			piece := io.NewSectionReader(f, at, min(int64(len(zeros)), end-at))
			counted := &counter{r: io.TeeReader(piece, h)}
			if err := data(counted, at); err != nil {
				return 0, err
			}
			if counted.n != piece.Size() {
				return 0, fmt.Errorf("%s became shorter: %w", f.Name(), io.ErrUnexpectedEOF)
			}
			at += piece.Size()
		}
	}
	return size, nil
}

// counter counts the bytes read through it.
type counter struct {
	r io.Reader
	n int64
}

// Read reads, and counts the bytes.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func hashZeros(ctx context.Context, h hash.Hash, n int64) error {
	for n > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		part := min(n, int64(len(zeros)))
		_, _ = h.Write(zeros[:part]) // a hash never fails
		n -= part
	}
	return nil
}
