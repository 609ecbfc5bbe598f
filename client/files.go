package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"strconv"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Files are the files of a sandbox's guest, for one of its users. Paths are absolute, or relative to the user's home. What the guest says
// of them is not to be believed: no size is a promise, and a name can be anything.
type Files struct {
	c        *Client
	id, user string
}

// Files are the sandbox's files, for the guest's default user.
func (s *Sandbox) Files() *Files { return &Files{c: s.c, id: s.ID} }

// As is the same for another user of the guest, to whom new files belong.
func (f *Files) As(user string) *Files { return &Files{f.c, f.id, user} }

// FileType is what an entry of a file system is.
type FileType string

// The types. Other is a pipe, a socket or a device.
const (
	RegularFile FileType = "file"
	Directory   FileType = "directory"
	Symlink     FileType = "symlink"
	OtherFile   FileType = "other"
)

// FileInfo is an entry of the guest's file system.
type FileInfo struct {
	Name, Path string
	// Inexact says that the name was changed to be shown, and the file can't be asked for by it.
	Inexact      bool
	Type         FileType
	Mode         fs.FileMode // the nine permission bits
	Size         int64       // in bytes; nothing says that so much will come
	Owner, Group string
	ModifiedAt   time.Time // zero when it is not known
	// SymlinkTarget is where a symbolic link leads; empty for what is none.
	SymlinkTarget string
}

func toFile(f rest.File) (FileInfo, error) {
	mode, err := strconv.ParseUint(f.Mode, 8, 9)
	if err != nil {
		return FileInfo{}, fmt.Errorf("the server sent the mode %.20q: %w", f.Mode, ErrInternal)
	}
	return FileInfo{Name: f.Name, Path: f.Path, Inexact: or(f.Inexact, false), Type: FileType(f.Type), Mode: fs.FileMode(mode), Size: f.Size,
		Owner: f.Owner, Group: f.Group, ModifiedAt: or(f.ModifiedAt, time.Time{}), SymlinkTarget: or(f.SymlinkTarget, "")}, nil
}

// Stat tells of a file, folder or link. A symbolic link at the path's end is not followed.
func (f *Files) Stat(ctx context.Context, path string) (FileInfo, error) {
	if err := named("id", f.id); err != nil {
		return FileInfo{}, err
	}
	resp, err := f.c.rest.StatFile(ctx, f.id, &rest.StatFileParams{Path: path, User: given(f.user)})
	file, err := decode[rest.File](resp, err)
	if err != nil {
		return FileInfo{}, err
	}
	return toFile(file)
}

// List tells of what is in a folder, and of what is in folders there down to a depth, of which 1 is the folder alone. A list is whole, or
// ErrResourceExhausted when it would be too long.
func (f *Files) List(ctx context.Context, path string, depth int) ([]FileInfo, error) {
	if err := named("id", f.id); err != nil {
		return nil, err
	}
	resp, err := f.c.rest.ListFiles(ctx, f.id, &rest.ListFilesParams{Path: path, User: given(f.user), Depth: new(int32(depth))})
	all, err := decode[rest.FileList](resp, err)
	if err != nil {
		return nil, err
	}
	list := make([]FileInfo, len(all.Files))
	for i, file := range all.Files {
		if list[i], err = toFile(file); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Mkdir makes a folder, and those above it that are missing. It is ErrAlreadyExists when there is one.
func (f *Files) Mkdir(ctx context.Context, path string) error {
	if err := named("id", f.id); err != nil {
		return err
	}
	resp, err := f.c.rest.MakeDir(ctx, f.id, &rest.MakeDirParams{IdempotencyKey: once(ctx)}, rest.FilePath{Path: path, User: given(f.user)})
	_, err = decode[struct{}](resp, err)
	return err
}

// Move gives a file or folder another name on the same file system. Folders that are missing are made, a file that is there is replaced.
func (f *Files) Move(ctx context.Context, from, to string) error {
	if err := named("id", f.id); err != nil {
		return err
	}
	resp, err := f.c.rest.MoveFile(ctx, f.id, &rest.MoveFileParams{IdempotencyKey: once(ctx)}, rest.MoveFile{From: from, To: to, User: given(f.user)})
	_, err = decode[struct{}](resp, err)
	return err
}

// Remove removes a file, or a folder with all that is in it. What is not there is removed already.
func (f *Files) Remove(ctx context.Context, path string) error {
	if err := named("id", f.id); err != nil {
		return err
	}
	resp, err := f.c.rest.RemoveFile(ctx, f.id, &rest.RemoveFileParams{IdempotencyKey: once(ctx)}, rest.FilePath{Path: path, User: given(f.user)})
	_, err = decode[struct{}](resp, err)
	return err
}

// Read gives a file's content, of any size, which the caller closes. One that does not come whole ends with an error and not with io.EOF.
func (f *Files) Read(ctx context.Context, path string) (io.ReadCloser, error) {
	return f.read(ctx, path, "")
}

// ReadRange gives at most length bytes of a file from an offset on; fewer when the file ends there. It is ErrInvalid when it ends before.
func (f *Files) ReadRange(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length < 1 || offset+length < 0 {
		return nil, invalid("offset, length", fmt.Sprintf("%d and %d are no range", offset, length), "give an offset of 0 or more, and a length above 0")
	}
	return f.read(ctx, path, fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
}

func (f *Files) read(ctx context.Context, path, part string) (io.ReadCloser, error) {
	if err := named("id", f.id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	resp, err := f.c.rest.ReadFile(sent(ctx, manner{stream: true, safe: always}), f.id, &rest.ReadFileParams{Path: path, User: given(f.user), Range: given(part)})
	if err != nil {
		cancel()
		return nil, err
	}
	return &content{ctx, cancel, resp.Body}, nil
}

// content is a file that is read.
type content struct {
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if err != nil && err != io.EOF {
		err = broken(c.ctx, err)
	}
	return n, err
}

// Close implements io.Closer.
func (c *content) Close() error {
	c.cancel()
	return c.body.Close()
}

// WriteOption says how a file is stored.
type WriteOption func(*rest.WriteFileParams)

// Mode gives a file these nine permission bits, instead of those of the file that is replaced, or 644.
func Mode(mode fs.FileMode) WriteOption {
	return func(p *rest.WriteFileParams) { p.Mode = new(fmt.Sprintf("%03o", mode.Perm())) }
}

// Write stores what r has as a file, whole or not at all, and returns its length. Folders that are missing are made, a file that is there is
// replaced. An error of r's is returned as it is.
func (f *Files) Write(ctx context.Context, path string, r io.Reader, options ...WriteOption) (int64, error) {
	if err := named("id", f.id); err != nil {
		return 0, err
	}
	params := rest.WriteFileParams{Path: path, User: given(f.user)}
	for _, option := range options {
		option(&params)
	}
	body := &upload{r: r}
	resp, err := f.c.rest.WriteFileWithBody(ctx, f.id, &params, "application/octet-stream", body, func(_ context.Context, req *http.Request) error {
		req.Header.Set("Expect", "100-continue") // what is refused is refused before it is sent
		return nil
	})
	if body.err != nil {
		return 0, body.err
	}
	stored, err := decode[rest.WrittenFile](resp, err)
	return stored.Bytes, err
}

// upload is what is stored; it keeps the reader's own error.
type upload struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}

// Change is what happened to a file.
type Change string

// The changes. What gets another name is renamed under the old one and created under the new one.
const (
	FileCreated  Change = "created"
	FileWritten  Change = "written"
	FileRemoved  Change = "removed"
	FileRenamed  Change = "renamed"
	FileChmodded Change = "chmodded"
)

// FileChange is something that happened in a folder.
type FileChange struct {
	Change Change
	Name   string // relative to the folder; . is the folder
}

// Watch follows what happens in a folder, and in all below it when it is recursive. When it returns, everything from then on is told. The
// changes come until the loop over them is left or ctx ends, which is the last pair's error like all else that ends them: ErrNotFound when
// the folder is gone, ErrResourceExhausted when changes were lost. They are gone through once.
func (f *Files) Watch(ctx context.Context, path string, recursive bool) (iter.Seq2[FileChange, error], error) {
	if err := named("id", f.id); err != nil {
		return nil, err
	}
	in, err := f.c.messages(ctx, always, func(ctx context.Context) (*http.Response, error) {
		return f.c.rest.WatchFiles(ctx, f.id, &rest.WatchFilesParams{Path: path, User: given(f.user), Recursive: &recursive})
	})
	if err != nil {
		return nil, err
	}
	if m, err := in.next(); err != nil || m.kind != "watching" {
		in.close()
		if err == nil {
			_, err = toFileChange(m)
		}
		return nil, err
	}
	return func(yield func(FileChange, error) bool) {
		defer in.close()
		for {
			m, err := in.next()
			var change FileChange
			if err == nil {
				change, err = toFileChange(m)
			}
			if !yield(change, err) || err != nil {
				return
			}
		}
	}, nil
}

func toFileChange(m message) (FileChange, error) {
	var err error
	switch m.kind {
	case "change":
		var c rest.FileChange
		if err = json.Unmarshal(m.data, &c); err == nil {
			return FileChange{Change(c.Type), c.Name}, nil
		}
	case "error":
		var e rest.Error
		if err = json.Unmarshal(m.data, &e); err == nil {
			return FileChange{}, fromRest(e)
		}
	}
	return FileChange{}, fmt.Errorf("the server sent the event %.40q %.200q: %w", m.kind, m.data, ErrInternal)
}
