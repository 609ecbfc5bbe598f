package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"wrenn.dev/wrenn/internal/failpoint"
)

// pointFilesGone is between the removal of a template's files and that of its description.
var pointFilesGone = failpoint.New("template.files-gone")

// Own returns a template, be its files there or not, and those of them that no other template has. It fails as Get does, and with
// errs.ErrCorrupt when the description of another one can't be read: that may have any of the files.
func (s *Store) Own(name string) (Template, []Blob, error) {
	t, err := s.read(name)
	if err != nil {
		return t, nil, err
	}
	names, err := s.List()
	if err != nil {
		return t, nil, err
	}
	others := map[string]bool{}
	for _, other := range names {
		if other == name {
			continue
		}
		o, err := s.read(other)
		if err != nil {
			return t, nil, err
		}
		for _, b := range o.Blobs() {
			others[b.Digest] = true
		}
	}
	var own []Blob
	for _, b := range t.Blobs() {
		if !others[b.Digest] && !slices.Contains(own, b) {
			own = append(own, b)
		}
	}
	return t, own, nil
}

// Delete removes a template and some of its files, which nothing else needs. Its description goes last: one that is cut off leaves a template that
// Get refuses with errs.ErrCorrupt, and Delete again removes.
func (s *Store) Delete(ctx context.Context, name string, files []Blob) error {
	for _, b := range files {
		if err := os.Remove(s.Path(b.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("template %s: %w", name, err)
		}
	}
	if len(files) > 0 {
		if err := syncDir(filepath.Join(s.dir, "blobs")); err != nil {
			return fmt.Errorf("template %s: %w", name, err)
		}
	}
	if err := failpoint.Here(ctx, pointFilesGone); err != nil {
		return err
	}
	if err := os.Remove(s.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("template %s: %w", name, err)
	}
	return syncDir(filepath.Dir(s.file(name)))
}
