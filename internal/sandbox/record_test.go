package sandbox

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/statefile"
)

// newTestFolder makes a held folder with a record.
func newTestFolder(t *testing.T) (*folder, *Record) {
	t.Helper()
	r := &Record{Version: RecordVersion, ID: id.New(), Template: "base"}
	r.change(Starting, "asked for")
	path := filepath.Join(t.TempDir(), r.ID)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := hold(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.write(r); err != nil {
		t.Fatal(err)
	}
	return f, r
}

func TestRecordComesBack(t *testing.T) {
	f, r := newTestFolder(t)
	r.change(Running, "envd answers")
	if err := f.write(r); err != nil {
		t.Fatal(err)
	}
	got, err := f.read()
	if err != nil || got.State != Running || len(got.Changes) != 2 || got.Changes[1].Reason != "envd answers" {
		t.Fatalf("%+v, %v", got, err)
	}
	if st, err := os.Stat(filepath.Join(f.path, recordName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestOneHolderAtATime(t *testing.T) {
	f, _ := newTestFolder(t)
	if _, err := hold(f.path); !errors.Is(err, errs.ErrUnavailable) {
		t.Fatalf("a second hold: %v", err)
	}
	f.release()
	second, err := hold(f.path)
	if err != nil {
		t.Fatal(err)
	}
	second.release()
	if _, err := hold(filepath.Join(t.TempDir(), "nobody")); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestBadRecordsAreCorrupt(t *testing.T) {
	sealed := func(change func(*Record)) func(*testing.T, *folder, *Record) []byte {
		return func(t *testing.T, _ *folder, r *Record) []byte {
			change(r)
			data, err := statefile.Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	text := func(s string) func(*testing.T, *folder, *Record) []byte {
		return func(*testing.T, *folder, *Record) []byte { return []byte(s) }
	}
	for name, content := range map[string]func(*testing.T, *folder, *Record) []byte{
		"empty": text(""), "without a checksum": text(`{"version":3,"id":"cl-00000000000000000000","state":"running"}`),
		"other version": sealed(func(r *Record) { r.Version++ }), "other id": sealed(func(r *Record) { r.ID = id.New() }),
		"no state": sealed(func(r *Record) { r.Changes = nil }),
		"huge":     sealed(func(r *Record) { r.Template = strings.Repeat("x", maxRecordBytes) }),
		"a flipped bit": func(t *testing.T, f *folder, _ *Record) []byte {
			data, err := os.ReadFile(filepath.Join(f.path, recordName))
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			return data
		},
	} {
		f, r := newTestFolder(t)
		if err := os.WriteFile(filepath.Join(f.path, recordName), content(t, f, r), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.read(); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), "wrenn rm "+filepath.Base(f.path)) {
			t.Errorf("%s: %v", name, err)
		}
		f.release()
	}
}

func TestRemoveTakesEverything(t *testing.T) {
	f, _ := newTestFolder(t)
	if err := os.MkdirAll(filepath.Join(f.path, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
}

func FuzzReadRecord(f *testing.F) {
	r := &Record{Version: RecordVersion, ID: "cl-00000000000000000000"}
	r.change(Running, "envd answers")
	data, err := statefile.Encode(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":3,"id":"cl-00000000000000000000","changes":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := filepath.Join(t.TempDir(), "cl-00000000000000000000")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if rest, ok := bytes.CutPrefix(data, []byte("{")); ok { // what no checksum keeps out is to be read as well
			sum := sha256.Sum256(rest)
			data = append(fmt.Appendf(nil, "{%q: \"%x\",", "sha256", sum), rest...)
		}
		if err := os.WriteFile(filepath.Join(dir, recordName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readRecord(dir); err == nil && (r.ID != filepath.Base(dir) || r.Version != RecordVersion || len(r.Changes) == 0) {
			t.Fatalf("accepted %+v", r)
		}
	})
}
