package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Download copies a file or folder of the guest to a path here. Into a folder that is there it is copied under its own name; a folder's
// path that ends in "/." names what is in it. A file that is there is replaced. Errors of the guest are returned as they are;
// ErrResourceExhausted at the limits; ErrInvalid for what can't be a name here. What was copied before an error stays.
func Download(ctx context.Context, g Guest, from, to string, o Options) (Result, error) {
	j := &job{Options: o, ctx: ctx, guest: g}
	st, err := g.Stat(ctx, from)
	if err == nil {
		switch st.GetType() {
		case pb.FileType_FILE_TYPE_DIRECTORY:
			err = j.downloadFolder(from, to)
		case pb.FileType_FILE_TYPE_FILE:
			err = j.downloadFile(st, from, to)
		default:
			err = fmt.Errorf("%q is neither a file nor a folder: %w", from, errs.ErrInvalid)
		}
	}
	return j.result, err
}

// Content writes a file of the guest.
func Content(ctx context.Context, g Guest, from string, w io.Writer, o Options) (Result, error) {
	j := &job{Options: o, ctx: ctx, guest: g}
	st, err := g.Stat(ctx, from)
	if err != nil {
		return j.result, err
	}
	if st.GetType() != pb.FileType_FILE_TYPE_FILE {
		return j.result, fmt.Errorf("%q is no file: %w", from, errs.ErrInvalid)
	}
	j.result.Files++
	return j.result, j.fetch(st, from, w)
}

// ownName is the name of a path that the caller gave; "" for one that means what is in a folder.
func ownName(p string) string {
	name := path.Base(path.Clean(p))
	if name == "/" || name == "." || name == ".." || strings.HasSuffix(p, "/.") {
		return ""
	}
	return name
}

func (j *job) downloadFile(st *pb.File, from, to string) error {
	here, err := os.Stat(to)
	if err == nil && here.IsDir() || strings.HasSuffix(to, "/") {
		to = filepath.Join(to, ownName(from))
	}
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close()
	return j.file(root, st, from, filepath.Base(to))
}

func (j *job) downloadFolder(from, to string) error {
	if here, err := os.Stat(to); err == nil && here.IsDir() {
		to = filepath.Join(to, ownName(from))
	}
	if err := os.Mkdir(to, 0o777); err == nil {
		j.result.Folders++
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	return j.folder(root, from, ".", 0)
}

// folder copies what is in a folder of the guest to one below the root. The root is what keeps a name, or a link that is in the
// destination, from leading elsewhere.
func (j *job) folder(root *os.Root, from, to string, depth int) error {
	if err := tooDeep(from, depth); err != nil {
		return err
	}
	list, err := j.guest.List(j.ctx, from)
	if err != nil {
		return err
	}
	for _, st := range list {
		if err := j.entry(root, st, from, to, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one entry of a folder.
func (j *job) entry(root *os.Root, st *pb.File, from, to string, depth int) error {
	name := st.GetName()
	if err := checkName(st); err != nil {
		return fmt.Errorf("in %q: %w", from, err)
	}
	source, destination := path.Join(from, name), filepath.Join(to, name)
	switch {
	case st.GetSymlinkTarget() != "":
		j.skip(source, "a symbolic link")
	case st.GetType() == pb.FileType_FILE_TYPE_DIRECTORY:
		if err := j.makeFolder(root, destination, st); err != nil {
			return err
		}
		return j.folder(root, source, destination, depth+1)
	case st.GetType() == pb.FileType_FILE_TYPE_FILE:
		return j.file(root, st, source, destination)
	default:
		j.skip(source, "neither a file nor a folder")
	}
	var none int
	return j.made(&none)
}

// checkName refuses a name that is none. That the agent has done so before is nothing to rely on.
func checkName(st *pb.File) error {
	name := st.GetName()
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("the guest has an entry with the name %.100q: %w", name, errs.ErrInvalid)
	}
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if st.GetInexact() || strings.ContainsFunc(name, unprintable) {
		return fmt.Errorf("the name %.100q has characters that can't be copied; rename it in the guest: %w", name, errs.ErrInvalid)
	}
	return nil
}

// makeFolder makes a folder, unless there is one. It can be written to, whatever the guest's says: something is to be copied into it.
func (j *job) makeFolder(root *os.Root, name string, st *pb.File) error {
	if err := j.made(&j.result.Folders); err != nil {
		return err
	}
	err := root.Mkdir(name, fs.FileMode(st.GetMode()).Perm()|0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	here, err := root.Stat(name)
	if err == nil && !here.IsDir() {
		err = fmt.Errorf("%s is there and is no folder: %w", filepath.Join(root.Name(), name), errs.ErrAlreadyExists)
	}
	return err
}

// file copies a file. Until it is whole it has another name.
func (j *job) file(root *os.Root, st *pb.File, from, to string) (err error) {
	if err := j.made(&j.result.Files); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), ".wrenn-cp-"+rand.Text())
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(st.GetMode()).Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(temp))
		}
	}()
	if err := errors.Join(j.fetch(st, from, f), f.Close()); err != nil {
		return err
	}
	return root.Rename(temp, to)
}

// fetch copies a file's content: as much as it has by now of what the guest said.
func (j *job) fetch(st *pb.File, from string, w io.Writer) error {
	err := j.guest.Read(j.ctx, from, st.GetSize(), &bounded{j: j, w: w, path: from, size: int64(st.GetSize())})
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// bounded is a writer of a download that ends at its limits.
type bounded struct {
	j    *job
	w    io.Writer
	path string
	size int64
	n    int64
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if most := b.j.Bytes; most > 0 && b.j.result.Bytes+int64(len(p)) > most {
		return 0, fmt.Errorf("it is more than the limit of %d bytes: %w", most, errs.ErrResourceExhausted)
	}
	if b.n += int64(len(p)); b.size > 0 && b.n > b.size {
		return 0, fmt.Errorf("the guest sends more than the %d bytes that it has: %w", b.size, errs.ErrUnavailable)
	}
	n, err := b.w.Write(p)
	b.j.moved(b.path, n, b.size)
	return n, err
}
