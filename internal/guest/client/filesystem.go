package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
	"wrenn.dev/wrenn/proto/envd/filesystem/filesystempbconnect"
)

const (
	// maxList bounds the answer that has a list of files, in bytes; envd's own limit is below.
	maxList    = 16 << 20
	maxEntries = 64 << 10
	// maxPathText is how many characters of a path are kept.
	maxPathText = 4096
)

// Files is the files of a guest, as one of its users sees them. Paths are the guest's: absolute, or relative to the user's home. Its
// methods may be called from several goroutines.
//
// Errors: ErrNotFound for a path that does not exist, ErrAlreadyExists, ErrInvalid for a path that has something else than what is
// needed, ErrPermissionDenied for what the user may not do, ErrFailedPrecondition, ErrResourceExhausted for what is full or too much,
// ErrUnauthenticated for a user that the guest does not have, ErrUnavailable when the guest is gone or answers with what envd never would.
type Files struct {
	client *Client
	rpc    filesystempbconnect.FilesystemClient
	user   string
}

// Files returns the files as a user of the guest sees them; empty is its default user.
func (c *Client) Files(user string) *Files {
	return &Files{client: c, user: user, rpc: filesystempbconnect.NewFilesystemClient(c.http, baseURL,
		connect.WithReadMaxBytes(maxList), connect.WithAcceptCompression("gzip", nil, nil))}
}

// Type is what an entry is.
type Type int

// The types. Other is a pipe, a socket, a device, or what the guest has no name for.
const (
	Other Type = iota
	File
	Directory
	Symlink
)

// Entry is a file, a folder or something else in the guest. Its texts are the guest's, made fit to be shown.
type Entry struct {
	Name, Path string
	// Exact is false when the name or path had to be changed to be shown: they can't be asked for again.
	Exact bool
	// Type and Mode, the nine permission bits, are those of the target for a symbolic link that has one.
	Type Type
	Mode fs.FileMode
	// Size is 0 or more; nothing says that so much will come.
	Size         int64
	Owner, Group string
	Modified     time.Time
	// Target is where a symbolic link leads, and empty for what is none.
	Target string
}

// check refuses what the protocol can't carry as it is. Two paths are where something moves from and to.
func (f *Files) check(paths ...string) error {
	if strings.Contains(f.user, ":") {
		return errUserName(f.user)
	}
	fields := []string{"path"}
	if len(paths) == 2 {
		fields = []string{"from", "to"}
	}
	for i, path := range paths {
		if !utf8.ValidString(path) || strings.ContainsRune(path, 0) || len(path) > maxPathText {
			return errs.Field(fields[i], fmt.Sprintf("%.100q is not UTF-8, has a NUL in it, or is longer than %d bytes", path, maxPathText), "give another path")
		}
	}
	return nil
}

func errUserName(user string) error {
	return errs.Field("user", fmt.Sprintf("%q has a colon in its name", user), "give a user that the guest has")
}

// ask is a call with the user in its header.
func ask[M any](f *Files, m *M) *connect.Request[M] {
	req := connect.NewRequest(m)
	if f.user != "" {
		req.Header().Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(f.user+":")))
	}
	return req
}

// Stat tells of one entry, without following a symbolic link at the path's end.
func (f *Files) Stat(ctx context.Context, path string) (Entry, error) {
	if err := f.check(path); err != nil {
		return Entry{}, err
	}
	resp, err := f.rpc.Stat(ctx, ask(f, &filesystempb.StatRequest{Path: path}))
	if err != nil {
		return Entry{}, broken(err)
	}
	return one(resp.Msg.GetEntry())
}

// MakeDir makes a folder and those above it. ErrAlreadyExists when there is one.
func (f *Files) MakeDir(ctx context.Context, path string) error {
	if err := f.check(path); err != nil {
		return err
	}
	_, err := f.rpc.MakeDir(ctx, ask(f, &filesystempb.MakeDirRequest{Path: path}))
	return broken(err)
}

// Move gives an entry another name, on the same file system; missing folders are made, and a file that is there is replaced.
func (f *Files) Move(ctx context.Context, source, destination string) error {
	if err := f.check(source, destination); err != nil {
		return err
	}
	_, err := f.rpc.Move(ctx, ask(f, &filesystempb.MoveRequest{Source: source, Destination: destination}))
	return broken(err)
}

// Remove removes an entry with all that is in it. What does not exist is removed already.
func (f *Files) Remove(ctx context.Context, path string) error {
	if err := f.check(path); err != nil {
		return err
	}
	_, err := f.rpc.Remove(ctx, ask(f, &filesystempb.RemoveRequest{Path: path}))
	return broken(err)
}

// List tells of what is in a folder, depth levels of it (0 means 1), each folder before what is in it. An order, or that the paths are
// below the one that was asked for, is the guest's word alone.
func (f *Files) List(ctx context.Context, path string, depth uint32) ([]Entry, error) {
	if err := f.check(path); err != nil {
		return nil, err
	}
	resp, err := f.rpc.ListDir(ctx, ask(f, &filesystempb.ListDirRequest{Path: path, Depth: depth}))
	if err != nil {
		return nil, broken(err)
	}
	if n := len(resp.Msg.GetEntries()); n > maxEntries {
		return nil, unsound("a list of %d entries", n)
	}
	list := make([]Entry, 0, len(resp.Msg.GetEntries()))
	for _, pb := range resp.Msg.GetEntries() {
		e, err := one(pb)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

var types = map[filesystempb.FileType]Type{
	filesystempb.FileType_FILE_TYPE_FILE: File, filesystempb.FileType_FILE_TYPE_DIRECTORY: Directory, filesystempb.FileType_FILE_TYPE_SYMLINK: Symlink,
}

// one reads an entry, and refuses one that can't be: a name that is none would lead whoever makes a path of it elsewhere.
func one(pb *filesystempb.EntryInfo) (Entry, error) {
	name := pb.GetName()
	switch {
	case pb == nil:
		return Entry{}, unsound("no entry")
	case name == "" || name == "." || name == ".." || name != "/" && strings.Contains(name, "/") || strings.ContainsRune(name, 0) || len(name) > maxPathText:
		return Entry{}, unsound("an entry with the name %.100q", name)
	case !strings.HasPrefix(pb.GetPath(), "/"):
		return Entry{}, unsound("an entry with the path %.100q", pb.GetPath())
	case pb.GetSize() < 0:
		return Entry{}, unsound("a size of %d", pb.GetSize())
	}
	e := Entry{Name: clean(name), Path: cleanPath(pb.GetPath()), Type: types[pb.GetType()], Mode: fs.FileMode(pb.GetMode()) & fs.ModePerm,
		Size: pb.GetSize(), Owner: clean(pb.GetOwner()), Group: clean(pb.GetGroup()), Target: cleanPath(pb.GetSymlinkTarget())}
	e.Exact = e.Name == name && e.Path == pb.GetPath()
	if t := pb.GetModifiedTime(); t.IsValid() {
		e.Modified = t.AsTime()
	}
	return e, nil
}

// cleanPath makes a path from the guest fit for one line of a log or terminal, as clean does for what is shorter.
func cleanPath(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > maxPathText {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// keepaliveHeader asks for a sign of life as often as a stream's silence allows.
func keepaliveHeader() string { return strconv.Itoa(int(keepalive.Seconds())) }
