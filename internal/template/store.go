package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// maxJSON bounds what is read of a template's description.
const maxJSON = 1 << 20

// Store is a folder of templates. Several processes may read and write one at the same time.
type Store struct{ dir string }

// Open returns the store at dir. It makes nothing: a folder that is not there is a store without templates.
func Open(dir string) *Store { return &Store{dir: dir} }

// Path is the host path of the blob with this digest.
func (s *Store) Path(digest string) string { return filepath.Join(s.dir, "blobs", "sha256-"+digest) }

func (s *Store) file(name string) string { return filepath.Join(s.dir, "templates", name+".json") }

// Get returns the template of this name after it has seen that its blobs are there in full length; it does not hash them.
// It fails with a *errs.FieldError for a bad name, with errs.ErrNotFound and the names that there are when there is none,
// and with errs.ErrCorrupt when its description or a blob is not whole.
func (s *Store) Get(name string) (Template, error) {
	t, err := s.read(name)
	if err != nil {
		return Template{}, err
	}
	return t, s.complete(t)
}

// read returns a template whose files nobody has looked at.
func (s *Store) read(name string) (Template, error) {
	if err := CheckName(name); err != nil {
		return Template{}, err
	}
	f, err := os.Open(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Template{}, s.notFound(name)
	}
	if err != nil {
		return Template{}, fmt.Errorf("template %s: %w", name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJSON))
	if err != nil {
		return Template{}, fmt.Errorf("template %s: %w", name, err)
	}
	t, err := decode(text)
	if err != nil {
		return Template{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if t.Name != name {
		return Template{}, fmt.Errorf("%s describes template %s: %w", f.Name(), t.Name, errs.ErrCorrupt)
	}
	return t, nil
}

func (s *Store) notFound(name string) error {
	names, err := s.List()
	if err != nil {
		return err
	}
	have := "there is none in " + s.dir
	if len(names) > 0 {
		have = "there are: " + strings.Join(names, ", ")
	}
	return fmt.Errorf("template %q: %w; %s", name, errs.ErrNotFound, have)
}

// complete checks that every blob is there and as long as it must be.
func (s *Store) complete(t Template) error {
	for role, b := range t.Blobs() {
		info, err := os.Lstat(s.Path(b.Digest))
		switch {
		case err != nil:
			return fmt.Errorf("template %s: %s: %w: %w", t.Name, role, err, errs.ErrCorrupt)
		case !info.Mode().IsRegular() || info.Size() != b.Size:
			return fmt.Errorf("template %s: %s %s is no file of %d bytes: %w", t.Name, role, b.Digest, b.Size, errs.ErrCorrupt)
		}
	}
	return nil
}

// List returns the names of the templates, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "templates"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("templates: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Put stores a template under its name, in place of another of that name, after it has hashed every blob. Its ID is set
// here. It fails with errs.ErrInvalid for an incomplete template and errs.ErrCorrupt for a blob that is missing or wrong.
func (s *Store) Put(ctx context.Context, t Template) (Template, error) {
	if err := t.check(); err != nil {
		return Template{}, err
	}
	t.ID = t.identity()
	if err := s.verify(ctx, t); err != nil {
		return Template{}, err
	}
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return Template{}, err
	}
	err = s.write(s.file(t.Name), func(f *os.File) (string, error) {
		_, err := f.Write(append(text, '\n'))
		return s.file(t.Name), err
	})
	return t, err
}

// Verify hashes every blob of a template again. It fails with errs.ErrCorrupt when one is not what its name says.
func (s *Store) Verify(ctx context.Context, name string) error {
	t, err := s.Get(name)
	if err != nil {
		return err
	}
	return s.verify(ctx, t)
}

func (s *Store) verify(ctx context.Context, t Template) error {
	if err := s.complete(t); err != nil {
		return err
	}
	for role, b := range t.Blobs() {
		digest, err := hashFile(ctx, s.Path(b.Digest))
		if err != nil {
			return fmt.Errorf("template %s: %s: %w", t.Name, role, err)
		}
		if digest != b.Digest {
			return fmt.Errorf("template %s: %s %s has digest %s: %w", t.Name, role, b.Digest, digest, errs.ErrCorrupt)
		}
	}
	return nil
}

// Add copies a file into the store and returns its name there. Holes stay holes. What the store has already is left as it is.
func (s *Store) Add(ctx context.Context, path string) (Blob, error) {
	src, err := os.Open(path)
	if err != nil {
		return Blob{}, err
	}
	defer src.Close()
	var blob Blob
	err = s.write(s.Path("new"), func(dst *os.File) (string, error) {
		blob.Digest, blob.Size, err = copySparse(ctx, dst, src)
		if err != nil {
			return "", err
		}
		return s.Path(blob.Digest), dst.Chmod(0o444)
	})
	if err != nil {
		return Blob{}, fmt.Errorf("add %s to the templates' store: %w", path, err)
	}
	return blob, nil
}

// write makes a file beside the path near, lets fill write it and say its final path, and gives it that name once its
// content is on disk.
func (s *Store) write(near string, fill func(*os.File) (final string, err error)) (err error) {
	dir := filepath.Dir(near)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
		_ = f.Close()
	}()
	if err := f.Chmod(0o644); err != nil { // CreateTemp's 0600 would keep other users' tools out
		return err
	}
	final, err := fill(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), final); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Prune removes the blobs that no template names and that are older than age, and files that an ended process left
// half-written. It knows nothing of machines that still use a blob: it is for stores that only builders fill.
func (s *Store) Prune(age time.Duration) error {
	names, err := s.List()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, name := range names {
		t, err := s.Get(name)
		if err != nil {
			return err
		}
		for _, b := range t.Blobs() {
			keep[s.Path(b.Digest)] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, "blobs", e.Name())
		info, err := e.Info()
		if err != nil || keep[path] || time.Since(info.ModTime()) < age {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
