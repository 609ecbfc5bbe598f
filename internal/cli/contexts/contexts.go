// Package contexts stores servers under names, each with the API key for it, and which of them is the current one. They are in one file,
// which only its owner may read: $XDG_CONFIG_HOME/wrenn/config.json, or the same below ~/.config.
//
//	err := contexts.Change(func(f *contexts.File) error { f.Contexts["work"] = contexts.Server{URL: url, Key: key}; return nil })
//	file, err := contexts.Read()
//	server, err := file.Named("--context", "work")
package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/lazyregexp"
)

const (
	// version is the file's format.
	version = 1
	// maxBytes bounds the file, in bytes.
	maxBytes = 1 << 20
	// Local is the name that stands for this machine instead of a server.
	Local = "local"
)

// File is what is stored.
type File struct {
	Version  int               `json:"version"`
	Current  string            `json:"current,omitempty"` // a name; empty is this machine
	Contexts map[string]Server `json:"contexts"`
}

// Server is a server and the key for it.
type Server struct {
	URL string `json:"url"`
	Key string `json:"key"`
}

// nameForm is what a context may be called.
var nameForm = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName refuses what no context may be called: ErrInvalid, with the field.
func CheckName(field, name string) error {
	if !nameForm().MatchString(name) {
		return errs.Field(field, fmt.Sprintf("%.80q can't be a context's name", name), "give at most 64 letters, digits, dots, dashes and underscores")
	}
	return nil
}

// place is where contexts are stored.
func place() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" || !filepath.IsAbs(dir) { // as the XDG specification has it
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w: set HOME or XDG_CONFIG_HOME: %w", err, errs.ErrNotFound)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "wrenn", "config.json"), nil
}

// Read reads the file. One that is not there has none.
func Read() (File, error) {
	file := File{Version: version, Contexts: map[string]Server{}}
	path, err := place()
	if err != nil {
		return file, nil // without a home there are none either
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // in somebody else's home nothing was stored by who asks
		return file, nil
	}
	if err != nil {
		return file, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return file, fmt.Errorf("%s has API keys and others than its owner may read or change it: chmod 600 %s: %w", path, path, errs.ErrPermissionDenied)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return file, err
	}
	return decode(path, data)
}

// decode reads what write wrote, or a person with an editor.
func decode(path string, data []byte) (File, error) {
	var file File
	if len(data) > maxBytes {
		return file, fmt.Errorf("%s has more than %d bytes: %w", path, maxBytes, errs.ErrCorrupt)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return file, fmt.Errorf("%s: %w: mend or remove it: %w", path, err, errs.ErrCorrupt)
	}
	if file.Version != version {
		return file, fmt.Errorf("%s has version %d, and this wrenn knows %d: use the wrenn that wrote it: %w", path, file.Version, version, errs.ErrCorrupt)
	}
	if file.Contexts == nil {
		file.Contexts = map[string]Server{}
	}
	return file, nil
}

// Change changes the file, unless change fails. Others who do wait, and who reads meanwhile sees it as it was or as it is then.
func Change(change func(*File) error) error {
	path, err := place()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	file, err := Read()
	if err != nil {
		return err
	}
	if err := change(&file); err != nil {
		return err
	}
	return write(path, file)
}

func write(path string, file File) (err error) {
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "config-*.new") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // or it is there, of no use to anybody
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Named is a context. ErrInvalid, with the field and those that there are.
func (f File) Named(field, name string) (Server, error) {
	entry, ok := f.Contexts[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(f.Contexts)), ", ")
		if known == "" {
			known = "there is none yet; 'wrenn login' makes one"
		}
		return Server{}, errs.Field(field, fmt.Sprintf("there is no context %.80q", name), "give one of those that there are: "+known)
	}
	return entry, nil
}

// Remove forgets a context.
func (f *File) Remove(name string) error {
	if _, err := f.Named("context", name); err != nil {
		return err
	}
	delete(f.Contexts, name)
	if f.Current == name {
		f.Current = ""
	}
	return nil
}
