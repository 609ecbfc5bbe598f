// Package transfer copies files and folders between this machine and a guest.
//
//	result, err := transfer.Download(ctx, guest, "/srv/out", "./out", transfer.Options{Bytes: 1 << 30})
//	result, err := transfer.Upload(ctx, guest, "./in", "/srv/in", transfer.Options{})
//
// The guest is hostile: what it lists may have any name, and say anything of sizes. A download makes files below its destination and
// nowhere else, whatever the names are and wherever links in the destination lead, and ends at its limits. What is copied is streamed, and a
// file appears with its whole content or not at all.
//
// Regular files are copied with their permission bits, as far as the umask allows here, and folders. What else there is in a folder (symbolic links, pipes, sockets,
// devices) is left out, and Result says so. Links that a path of the caller's own ends with are followed.
package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Guest is the files of a sandbox; proto/hostagent/v1 says what the calls do.
type Guest interface {
	Stat(ctx context.Context, path string) (*pb.File, error)
	// List tells of one folder's own entries.
	List(ctx context.Context, path string) ([]*pb.File, error)
	MakeDir(ctx context.Context, path string) error
	// Read writes the first length bytes of a file, or all of it when length is 0.
	Read(ctx context.Context, path string, length uint64, w io.Writer) error
	Write(ctx context.Context, path string, mode uint32, r io.Reader) error
}

// Options bound a copy and follow it.
type Options struct {
	// Bytes is the most that a download takes, of all files together; 0 is no limit.
	Bytes int64
	// Entries is the most files and folders that a copy makes or leaves out; 0 is DefaultEntries.
	Entries int
	// Moved is called with each piece that was copied, and the file that it is of; nil is not called. Size is the file's, as far as is
	// known.
	Moved func(path string, n int, size int64)
}

// DefaultEntries is more than a person copies file by file.
const DefaultEntries = 1 << 20

// maxDepth bounds how far below each other the folders of a copy are.
const maxDepth = 256

// Result is what a copy did.
type Result struct {
	Files   int       `json:"files"`
	Folders int       `json:"folders"`
	Bytes   int64     `json:"bytes"`
	Skipped []Skipped `json:"skipped,omitempty"`
}

// Skipped is what was left out.
type Skipped struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// job is a copy under way.
type job struct {
	Options
	ctx    context.Context
	guest  Guest
	result Result
}

func (j *job) skip(path, reason string) {
	j.result.Skipped = append(j.result.Skipped, Skipped{path, reason})
}

// made counts one more entry.
func (j *job) made(count *int) error {
	if err := context.Cause(j.ctx); err != nil {
		return err
	}
	if most := cmp.Or(j.Entries, DefaultEntries); j.result.Files+j.result.Folders+len(j.result.Skipped) > most {
		return fmt.Errorf("there are more than %d files: copy them in parts, or as one archive: %w", most, errs.ErrResourceExhausted)
	}
	*count++
	return nil
}

// moved counts bytes of a file.
func (j *job) moved(path string, n int, size int64) {
	j.result.Bytes += int64(n)
	if j.Moved != nil {
		j.Moved(path, n, size)
	}
}

// tooDeep refuses a folder that is too far below.
func tooDeep(path string, depth int) error {
	if depth < maxDepth {
		return nil
	}
	return fmt.Errorf("%.200q is more than %d folders below the one to copy: %w", path, maxDepth, errs.ErrResourceExhausted)
}

// isFolder says whether a guest's path is one; false for one that is not there.
func isFolder(ctx context.Context, g Guest, path string) (bool, error) {
	st, err := g.Stat(ctx, path)
	if errors.Is(err, errs.ErrNotFound) {
		return false, nil
	}
	return st.GetType() == pb.FileType_FILE_TYPE_DIRECTORY, err
}
