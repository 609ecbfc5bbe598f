package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"wrenn.dev/wrenn/internal/errs"
)

// stdinMode is the mode of a file that has none here.
const stdinMode = 0o644

// Upload copies a file or folder of this machine to a path of the guest. Into a folder that is there it is copied under its own name; a
// folder's path that ends in "/." names what is in it. A file that is there is replaced. Errors of the guest are returned as they
// are. What was copied before an error stays.
func Upload(ctx context.Context, g Guest, from, to string, o Options) (Result, error) {
	j := &job{Options: o, ctx: ctx, guest: g}
	st, err := os.Stat(from)
	if err == nil {
		to, err = j.place(from, to)
	}
	if err == nil {
		switch {
		case st.IsDir():
			err = j.uploadFolder(from, to)
		case st.Mode().IsRegular():
			err = j.uploadFile(func() (fs.File, error) { return os.Open(from) }, from, to)
		default:
			err = fmt.Errorf("%q is neither a file nor a folder: %w", from, errs.ErrInvalid)
		}
	}
	return j.result, err
}

// Store makes a file of the guest of what r has.
func Store(ctx context.Context, g Guest, r io.Reader, to string, o Options) (Result, error) {
	j := &job{Options: o, ctx: ctx, guest: g}
	j.result.Files++
	return j.result, g.Write(ctx, to, stdinMode, &followed{j: j, r: r, path: to})
}

// place is where what the caller named goes.
func (j *job) place(from, to string) (string, error) {
	into := strings.HasSuffix(to, "/")
	if !into {
		var err error
		if into, err = isFolder(j.ctx, j.guest, to); err != nil {
			return "", err
		}
	}
	if !into {
		return to, nil
	}
	abs, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(from, "/.") || abs == "/" {
		return to, nil
	}
	return path.Join(to, filepath.Base(abs)), nil
}

func (j *job) uploadFolder(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !utf8.ValidString(name) {
			return fmt.Errorf("the name %q is not UTF-8 and can't be copied; rename it: %w", name, errs.ErrInvalid)
		}
		source, destination := filepath.Join(from, name), path.Join(to, name)
		switch {
		case d.IsDir():
			if err := tooDeep(source, strings.Count(name, "/")); err != nil {
				return err
			}
			return j.makeDir(destination)
		case d.Type().IsRegular():
			return j.uploadFile(func() (fs.File, error) { return root.Open(name) }, source, destination)
		case d.Type() == fs.ModeSymlink:
			j.skip(source, "a symbolic link")
		default:
			j.skip(source, "neither a file nor a folder")
		}
		var none int
		return j.made(&none)
	})
}

// makeDir makes a folder, unless there is one.
func (j *job) makeDir(to string) error {
	if err := j.made(&j.result.Folders); err != nil {
		return err
	}
	err := j.guest.MakeDir(j.ctx, to)
	if errors.Is(err, errs.ErrAlreadyExists) {
		return nil
	}
	return err
}

func (j *job) uploadFile(open func() (fs.File, error), from, to string) error {
	if err := j.made(&j.result.Files); err != nil {
		return err
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := j.guest.Write(j.ctx, to, uint32(st.Mode().Perm()), &followed{j: j, r: f, path: from, size: st.Size()}); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

// followed is a reader of an upload.
type followed struct {
	j    *job
	r    io.Reader
	path string
	size int64
}

// Read implements io.Reader.
func (f *followed) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.j.moved(f.path, n, f.size)
	return n, err
}
