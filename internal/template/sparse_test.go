package template

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// TestAnyLayout adds files of any layout of data and holes: the copy has the same content, and its name is the hash that
// reading all of it gives.
func TestAnyLayout(t *testing.T) {
	dir := t.TempDir()
	s := Open(filepath.Join(dir, "store"))
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(dir, "file")
		f, err := os.Create(path)
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		for range rapid.IntRange(0, 6).Draw(rt, "pieces") {
			at := rapid.Int64Range(0, 4<<20).Draw(rt, "at")
			data := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, rapid.IntRange(1, 100_000).Draw(rt, "length"))
			if _, err := f.WriteAt(data, at); err != nil {
				rt.Fatal(err)
			}
		}
		if err := f.Truncate(rapid.Int64Range(0, 5<<20).Draw(rt, "size")); err != nil {
			rt.Fatal(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			rt.Fatal(err)
		}
		blob, err := s.Add(t.Context(), path)
		if err != nil {
			rt.Fatal(err)
		}
		sum := sha256.Sum256(want)
		got, err := os.ReadFile(s.Path(blob.Digest))
		if err != nil || !bytes.Equal(got, want) || blob.Digest != hex.EncodeToString(sum[:]) || blob.Size != int64(len(want)) {
			rt.Fatalf("blob %+v of %d bytes, copy of %d bytes, %v", blob, len(want), len(got), err)
		}
		if again, err := hashFile(t.Context(), s.Path(blob.Digest)); err != nil || again != blob.Digest {
			rt.Fatalf("hashFile = %s, %v", again, err)
		}
	})
}
