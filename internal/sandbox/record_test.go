package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
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
	for name, text := range map[string]string{
		"empty": "", "half": `{"version":1,"id":"cl-`, "other version": `{"version":99}`, "other id": `{"version":1,"id":"cl-other"}`,
		"huge": `{"template":"` + strings.Repeat("x", maxRecordBytes) + `"}`,
	} {
		f, _ := newTestFolder(t)
		if err := os.WriteFile(filepath.Join(f.path, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.read(); !errors.Is(err, errs.ErrCorrupt) {
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
	f.Add([]byte(`{"version":1,"id":"cl-00000000000000000000","state":"running"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := filepath.Join(t.TempDir(), "cl-00000000000000000000")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, recordName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readRecord(dir); err == nil && (r.ID != filepath.Base(dir) || r.Version != RecordVersion) {
			t.Fatalf("accepted %+v", r)
		}
	})
}
