// Package statefile keeps a small value of state in a file: after a crash, of the process or of the host, the file has what was written
// last or what it had before, and a file that is anything else is refused.
//
// The file is a JSON object whose first line is the SHA-256 of all bytes after it:
//
//	{"sha256": "<64 hex digits>",
//	  "version": 3,
//	  …
//	}
//
// What its fields mean, and which version they have, is its owner's. It is a leaf package.
package statefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
)

// The steps at which a test can stop the process.
var (
	pointWritten = failpoint.New("statefile.written") // the new file is whole, beside its place
	pointPlaced  = failpoint.New("statefile.placed")  // it is in its place, for good
)

// besideSuffix is what the name of a file has until it is whole.
const besideSuffix = ".new"

// What the first line has around the sum.
const (
	sumPrefix = `{"sha256": "`
	sumSuffix = `",`
	headBytes = len(sumPrefix) + 2*sha256.Size + len(sumSuffix)
)

// Encode is the content of a file with a value, which must be one that JSON has an object for.
func Encode(v any) ([]byte, error) {
	object, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(append(object, '\n'), []byte("{"))
	if !ok || bytes.HasPrefix(rest, []byte("}")) {
		return nil, fmt.Errorf("%T is no object with fields: %w", v, errs.ErrInvalid)
	}
	sum := sha256.Sum256(rest)
	return append([]byte(sumPrefix+hex.EncodeToString(sum[:])+sumSuffix), rest...), nil
}

// Decode reads what Encode made. It fails with ErrCorrupt for anything else.
func Decode(data []byte, v any) error {
	if len(data) < headBytes {
		return fmt.Errorf("it has %d bytes: %w", len(data), errs.ErrCorrupt)
	}
	sum := sha256.Sum256(data[headBytes:])
	if string(data[:headBytes]) != sumPrefix+hex.EncodeToString(sum[:])+sumSuffix {
		return fmt.Errorf("its checksum does not fit what it says: %w", errs.ErrCorrupt)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", err, errs.ErrCorrupt)
	}
	return nil
}

// Write puts a value into the file at path, which nobody else writes at the same time. When it returns nil, that is there for good; when it
// fails, the file is what it was. A process that is killed may leave a file with the suffix ".new", which the next Write replaces.
func Write(path string, v any) error {
	data, err := Encode(v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := writeSynced(path+besideSuffix, data); err != nil {
		return err
	}
	if err := failpoint.Here(context.Background(), pointWritten); err != nil {
		return err
	}
	if err := os.Rename(path+besideSuffix, path); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return failpoint.Here(context.Background(), pointPlaced)
}

// Read reads a file of at most limit bytes. It fails with ErrNotFound, and with ErrCorrupt for one that is not as Write left it.
func Read(path string, limit int64, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, errs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return fmt.Errorf("%s has more than %d bytes: %w", path, limit, errs.ErrCorrupt)
	}
	if err := Decode(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
