package main

import (
	"archive/tar"
	"errors"
	"io"
	"os"
)

// untar writes the folders and regular files of an archive below root. Everything else in it is left out.
func untar(root *os.Root, r io.Reader) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // the archive's padding
			return err
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(h.Name, 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			if err := writeFile(root, h.Name, t); err != nil {
				return err
			}
		}
	}
}

func writeFile(root *os.Root, name string, r io.Reader) error {
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
