package firecracker

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreClosedByAnEarlierDefer: what is added after the defer is closed by it, and not by the garbage collector at some time before.
func TestFilesAreClosedByAnEarlierDefer(t *testing.T) {
	var file *os.File
	func() {
		var open files
		defer open.close()
		var err error
		if file, err = open.add(os.Create(filepath.Join(t.TempDir(), "f"))); err != nil {
			t.Fatal(err)
		}
	}()
	if err := file.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("it was still open: %v", err)
	}
}
