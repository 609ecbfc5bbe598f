// Package roottar makes a root file system out of the tar archive of a Debian tree: without what a machine must not share
// with others, without traces of when and where it was made, and with files of ours put in. The same packages and files give
// the same bytes.
//
// An archive is read twice: Scan learns what Write has to know before its first byte.
package roottar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Summary is what Scan learns.
type Summary struct {
	// Epoch is the time of the newest file that came out of a package. Files that installing made get this time: they are
	// then no newer for having been made today, and not older than what they were made from.
	Epoch time.Time
	// Bytes is the room that the files take, in blocks of Block bytes each; Files is their number.
	Bytes, Files int64
	// Packages are "name=version" of every package, sorted.
	Packages []string
	// Picked are the files that the caller asked for, by path.
	Picked map[string][]byte
}

// Block is the unit in which a file system gives room to files.
const Block = 4096

// maxPicked bounds a file that Scan is asked for, and the package database.
const maxPicked = 64 << 20

const dpkgStatus = "var/lib/dpkg/status"

// PackagesDigest is the sha256, in hex, of the list of packages.
func (s Summary) PackagesDigest() string {
	sum := sha256.Sum256([]byte(strings.Join(s.Packages, "\n")))
	return hex.EncodeToString(sum[:])
}

// Scan reads an archive that was begun at the time began. Picks are paths of files whose content the caller wants; one that is
// missing is an error.
func Scan(r io.Reader, began time.Time, picks ...string) (Summary, error) {
	s := Summary{Picked: map[string][]byte{}}
	picks = append(picks, dpkgStatus)
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Summary{}, fmt.Errorf("root archive: %w", err)
		}
		s.Files++
		s.Bytes += (h.Size + Block - 1) / Block * Block
		if h.ModTime.Before(began) && h.ModTime.After(s.Epoch) {
			s.Epoch = h.ModTime.Truncate(time.Second)
		}
		if name := clean(h.Name); slices.Contains(picks, name) {
			if s.Picked[name], err = io.ReadAll(io.LimitReader(in, maxPicked)); err != nil {
				return Summary{}, fmt.Errorf("root archive: %s: %w", name, err)
			}
		}
	}
	for _, p := range picks {
		if s.Picked[p] == nil {
			return Summary{}, fmt.Errorf("root archive: there is no %s in it", p)
		}
	}
	s.Packages = packages(s.Picked[dpkgStatus])
	delete(s.Picked, dpkgStatus)
	return s, nil
}

// packages reads dpkg's database: stanzas of fields, one a package.
func packages(status []byte) []string {
	var list []string
	var name string
	lines := bufio.NewScanner(bytes.NewReader(status))
	lines.Buffer(nil, maxPicked)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "Package":
			name = value
		case "Version":
			list = append(list, name+"="+value)
		}
	}
	slices.Sort(list)
	return list
}

// File is a file to put into the archive. Folders on the way to it that the archive lacks are made; a Path that ends in a slash
// asks for nothing else.
type File struct {
	Path string // without a leading slash
	Mode int64
	Data []byte
}

// Write copies the archive r that s was scanned from to w, cleaned, with the files added. Every time is at most s.Epoch.
func Write(w io.Writer, r io.Reader, s Summary, files []File) error {
	out := &writer{tar: tar.NewWriter(w), epoch: s.Epoch, have: map[string]bool{".": true}}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("root archive: %w", err)
		}
		if err := out.copy(h, in, files); err != nil {
			return fmt.Errorf("root archive: %s: %w", h.Name, err)
		}
	}
	for _, f := range files {
		if err := out.file(f); err != nil {
			return fmt.Errorf("root archive: %s: %w", f.Path, err)
		}
	}
	return out.tar.Close()
}

type writer struct {
	tar   *tar.Writer
	epoch time.Time
	have  map[string]bool
}

// copy passes an entry on unless it is left out or one of files takes its place.
func (w *writer) copy(h *tar.Header, body io.Reader, files []File) error {
	name := clean(h.Name)
	if leftOut(name, h.Typeflag) || slices.ContainsFunc(files, func(f File) bool { return f.Path == name }) {
		return nil
	}
	w.have[name] = true
	var data []byte
	if edit := edits[name]; edit != nil && h.Typeflag == tar.TypeReg {
		old, err := io.ReadAll(io.LimitReader(body, maxPicked))
		if err != nil {
			return err
		}
		data = edit(old)
		h.Size, body = int64(len(data)), bytes.NewReader(data)
	}
	if h.ModTime.After(w.epoch) {
		h.ModTime = w.epoch
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	h.AccessTime, h.ChangeTime, h.Uname, h.Gname, h.Format = time.Time{}, time.Time{}, "", "", tar.FormatPAX
	maps := map[string]string{}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.xattr.") { // file capabilities, for one
			maps[key] = value
		}
	}
	h.PAXRecords = maps
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w.tar, body)
	return err
}

// file adds a file of ours and the folders that it needs.
func (w *writer) file(f File) error {
	var missing []string
	for dir := path.Dir(f.Path); !w.have[dir]; dir = path.Dir(dir) {
		missing = append(missing, dir)
		w.have[dir] = true
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		h := tar.Header{Typeflag: tar.TypeDir, Name: "./" + dir + "/", Mode: 0o755, ModTime: w.epoch, Format: tar.FormatPAX}
		if err := w.tar.WriteHeader(&h); err != nil {
			return err
		}
	}
	if strings.HasSuffix(f.Path, "/") {
		return nil
	}
	h := tar.Header{
		Typeflag: tar.TypeReg, Name: "./" + f.Path, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: w.epoch, Format: tar.FormatPAX,
	}
	if err := w.tar.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.tar.Write(f.Data)
	return err
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
