package cli

import (
	"errors"
	"os"
	"path/filepath"
)

// secretFile is a file for its owner alone that is in its place when it is whole, or not at all.
type secretFile struct {
	path string
	temp *os.File // nil once it is in its place
}

// newSecretFile opens one beside its place, without touching what may be there.
func newSecretFile(path string) (*secretFile, error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // its mode is 0600
	if err != nil {
		return nil, err
	}
	return &secretFile{path, temp}, nil
}

// keep writes the content and puts the file in its place, for good.
func (f *secretFile) keep(content string) error {
	if _, err := f.temp.WriteString(content); err != nil {
		return err
	}
	if err := errors.Join(f.temp.Sync(), f.temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.temp.Name(), f.path); err != nil {
		return err
	}
	f.temp = nil
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// drop removes a file that was not kept.
func (f *secretFile) drop() {
	if f.temp != nil {
		_ = f.temp.Close() // it may be closed already
		_ = os.Remove(f.temp.Name())
	}
}
