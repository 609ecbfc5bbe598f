package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

type value struct {
	Version int               `json:"version"`
	Text    string            `json:"text,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

var some = value{Version: 3, Text: "a \"}\n\u2028<", Labels: map[string]string{"a": "b"}}

func TestWhatIsWrittenComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.json")
	for _, want := range []value{some, {Version: 1}} {
		if err := Write(path, want); err != nil {
			t.Fatal(err)
		}
		var got value
		if err := Read(path, 1<<10, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := Read(path+"x", 1<<10, new(value)); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	if err := Read(path, 20, new(value)); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("too long: %v", err)
	}
}

// TestEveryOtherByteIsRefused changes, adds and takes away each byte in turn.
func TestEveryOtherByteIsRefused(t *testing.T) {
	whole, err := Encode(some)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, data []byte) {
		t.Helper()
		if err := Decode(data, new(value)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range whole {
		for bit := range 8 {
			flipped := []byte(string(whole))
			flipped[i] ^= 1 << bit
			refused("flipped: "+string(flipped), flipped)
		}
		refused("torn", whole[:i])
	}
	refused("longer", append([]byte(string(whole)), '\n'))
	refused("zeros", make([]byte, len(whole)))
}

func TestWhatIsNoObjectIsRefused(t *testing.T) {
	for _, v := range []any{1, "{", []int{1}, struct{}{}, nil, make(chan int)} {
		if data, err := Encode(v); err == nil {
			t.Errorf("%v: %s", v, data)
		}
	}
}

// TestAFailedWriteChangesNothing: neither a place that can't be written to, nor a half file of a process that was killed.
func TestAFailedWriteChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(path+besideSuffix, []byte(strings.Repeat("x", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, some); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+besideSuffix, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, value{Version: 4}); err == nil {
		t.Error("it was written")
	}
	var got value
	if err := Read(path, 1<<10, &got); err != nil || !reflect.DeepEqual(got, some) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := Encode(some)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"sha256": "`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v value
		if err := Decode(data, &v); err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		var w value
		if err := Decode(again, &w); err != nil || !reflect.DeepEqual(v, w) {
			t.Fatalf("%+v, then %+v, %v", v, w, err)
		}
	})
}

// BenchmarkWrite is of a value as long as most records.
func BenchmarkWrite(b *testing.B) {
	path, v := filepath.Join(b.TempDir(), "file.json"), value{Text: strings.Repeat("x", 2<<10)}
	for b.Loop() {
		if err := Write(path, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	path, v := filepath.Join(b.TempDir(), "file.json"), value{Text: strings.Repeat("x", 2<<10)}
	if err := Write(path, v); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := Read(path, 1<<20, &v); err != nil {
			b.Fatal(err)
		}
	}
}
