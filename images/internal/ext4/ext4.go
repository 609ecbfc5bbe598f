// Package ext4 makes file system images from tar archives with mkfs.ext4, mounting nothing. The same archive gives the same
// bytes.
package ext4

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/build/debian"
)

// Spec says what an image is like.
type Spec struct {
	// Label is the file system's name, at most 16 bytes. Its identifiers follow from it.
	Label string
	// Size is the image's length in bytes, a multiple of the block size. What is free in it is a hole.
	Size int64
	// Epoch is the time that the file system was made, as it says itself.
	Epoch time.Time
	// Sealed images are never written to: they have neither a journal nor room for growth.
	Sealed bool
}

// Make writes a sparse image to path, which must not be there, filled from the archive that fill writes. Tools is the tree of
// package debian whose mkfs.ext4 can read archives.
func Make(ctx context.Context, tools, path string, spec Spec, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = f.Truncate(spec.Size)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	cmd, err := debian.Command(ctx, tools, "mkfs.ext4", spec.args(path)...)
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, "E2FSPROGS_FAKE_TIME="+strconv.FormatInt(spec.Epoch.Unix(), 10))
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w", err)
	}
	filled := errors.Join(fill(in), in.Close())
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w; it said:\n%s", errors.Join(err, filled), out.text)
	}
	return filled
}

// args: the features follow from what happens to the image. Its blocks are known to be zero, so that neither mkfs nor, on
// each machine's copy, the kernel writes zeros over the inode tables.
func (s Spec) args(path string) []string {
	id := s.uuid()
	args := []string{
		"-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", s.Label, "-U", id,
		"-E", "hash_seed=" + id + ",root_owner=0:0,nodiscard,assume_storage_prezeroed=1,lazy_journal_init=1", "-d", "-",
	}
	if s.Sealed {
		args = append(args, "-O", "^has_journal,^resize_inode,^orphan_file")
	}
	return append(args, path, strconv.FormatInt(s.Size>>10, 10)+"k")
}

// uuid is an identifier made of the label, in the form of a random one.
func (s Spec) uuid() string {
	h := sha256.Sum256([]byte("wrenn file system " + s.Label))
	b := h[:16]
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

const maxTail = 4096

// Write keeps the end of what was written so far, maxTail bytes of it.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(p), nil
}
