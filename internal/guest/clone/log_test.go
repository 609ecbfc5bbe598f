package clone

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIsReseed(t *testing.T) {
	for record, want := range map[string]bool{
		"5,1,2,-;" + forkLine + "\n":                     true,
		"5,1,2,-,caller=T1;" + forkLine + "\n":           true,
		"0,1,2,-;" + forkLine:                            true,
		forked:                                           true,
		"13,1,2,-;" + forkLine + "\n":                    false, // as the kernel passes on what a program wrote
		"8,1,2,-;" + forkLine + "\n":                     false,
		"-3,1,2,-;" + forkLine + "\n":                    false,
		"5,1,2,-;" + forkLine + "!\n":                    false,
		"5,1,2,-; " + forkLine + "\n":                    false,
		"5,1,2,-;traps: " + forkLine + "[12] general":    false,
		"5,1,2,-;x\n " + forkLine + "\n":                 false,
		"5,1,2,-;x;" + forkLine + "\n":                   false,
		forkLine:                                         false,
		"":                                               false,
		";" + forkLine:                                   false,
		"4294967296,1,2,-;" + forkLine:                   false,
		"5,1,2,-;random: crng init done\n":               false,
		"5,1,2,-;crng reseeded due to virtual machine f": false,
	} {
		if got := isReseed(record); got != want {
			t.Errorf("%q: got %v", record, got)
		}
	}
}

func FuzzIsReseed(f *testing.F) {
	f.Add(forked)
	f.Add("13,1,2,-;" + forkLine)
	f.Fuzz(func(t *testing.T, record string) {
		if isReseed(record) && !strings.Contains(record, ";"+forkLine) {
			t.Errorf("%q is taken for it", record)
		}
	})
}

// channel is a log that the test writes records to: reads return one each, as those of the kernel's do.
func channel(t *testing.T) (*kernelLog, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "log")
	t.Cleanup(func() { _ = f.Close(); _ = unix.Close(fds[1]) })
	return &kernelLog{f}, fds[1]
}

func TestNext(t *testing.T) {
	log, w := channel(t)
	say := func(record string) {
		if _, err := unix.Write(w, []byte(record)); err != nil {
			t.Error(err)
		}
	}
	say("one")
	say(strings.Repeat("x", 8<<10))
	if got, err := log.Next(t.Context()); err != nil || got != "one" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := log.Next(t.Context()); err != nil || len(got) != 8<<10 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	go func() {
		time.Sleep(3 * look)
		say("late")
	}()
	if got, err := log.Next(t.Context()); err != nil || got != "late" {
		t.Errorf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), look/2)
	defer cancel()
	if _, err := log.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a record: %v", err)
	}
	_ = log.file.Close()
	if _, err := log.Next(t.Context()); err == nil {
		t.Error("a closed log has a record")
	}
}

func TestMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.file.Close()
	if at, err := log.file.Seek(0, 1); err != nil || at != 6 {
		t.Errorf("it is opened at %d, %v", at, err)
	}
	if err := os.WriteFile(path, []byte("before, after"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := log.Mark(); err != nil {
		t.Error(err)
	}
	if at, err := log.file.Seek(0, 1); err != nil || at != 13 {
		t.Errorf("it is marked at %d, %v", at, err)
	}
	pipe, _ := channel(t)
	if err := pipe.Mark(); err == nil {
		t.Error("what has no position was marked")
	}
	if _, err := openLog(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}
