package ramdisk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func TestWaitForWhatIsThere(t *testing.T) {
	if err := waitFor(os.DevNull, time.Hour); err != nil {
		t.Errorf("waitFor = %v", err)
	}
}

func TestWaitForGivesUp(t *testing.T) {
	const patience = 50 * time.Millisecond
	began := time.Now()
	err := waitFor(filepath.Join(t.TempDir(), "vda"), patience)
	if !errors.Is(err, errs.ErrNotFound) || time.Since(began) < patience {
		t.Errorf("waitFor = %v after %v", err, time.Since(began))
	}
}

func TestReadArgs(t *testing.T) {
	for text, want := range map[string]string{
		"quiet root=/dev/vdc ro\n": "/dev/vdc",
		"":                         "/dev/vda",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cmdline"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if args, err := readArgs(fd); err != nil || args.Root != want {
			t.Errorf("readArgs of %q = %+v, %v", text, args, err)
		}
	}
}
