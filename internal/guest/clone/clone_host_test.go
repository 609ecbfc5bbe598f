//go:build hosttest

package clone

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// alone runs a test in namespaces of its own, on a thread that nobody uses afterwards.
func alone(t *testing.T, namespaces int, test func(t *testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(namespaces); err != nil {
			t.Errorf("new namespaces: %v", err)
			return
		}
		test(t)
	}()
	<-done
}

// TestNobodyForgesTheReseed writes the kernel's line into its log, as root and under every priority that could be the kernel's.
func TestNobodyForgesTheReseed(t *testing.T) {
	log, err := openLog(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.file.Close()
	w, err := os.OpenFile(logFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	marker := "wrenn: a test's last line"
	for _, line := range []string{forkLine, "<5>" + forkLine, "<0>" + forkLine, "<2053>" + forkLine, marker} {
		if _, err := w.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for found := false; !found; {
		record, err := log.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(record, forkLine) {
			seen++
		}
		if isReseed(record) {
			t.Errorf("%q is believed", record)
		}
		found = strings.Contains(record, marker)
	}
	if seen != 4 {
		t.Errorf("%d forged lines were seen: the test sees nothing", seen)
	}
}

// TestMarkSkips shows that what was logged before the mark is not read after it.
func TestMarkSkips(t *testing.T) {
	log, err := openLog(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.file.Close()
	if err := os.WriteFile(logFile, []byte("wrenn: before the mark\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := log.Mark(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logFile, []byte("wrenn: after the mark\n"), 0); err != nil {
		t.Fatal(err)
	}
	for {
		record, err := log.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(record, "before the mark") {
			t.Error("it was read")
		}
		if strings.Contains(record, "after the mark") {
			return
		}
	}
}

// TestNoReseedHere shows with the real parts that a machine that is no clone is not taken for one.
func TestNoReseedHere(t *testing.T) {
	m, err := System(func(err error) { t.Errorf("it warned: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	defer m.Log.(*kernelLog).file.Close()
	m.Patience = 300 * time.Millisecond
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Distinguish(t.Context(), Identity{Start: "a", Hostname: "clone"}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if name, err := os.Hostname(); err != nil || name == "clone" {
		t.Errorf("the machine is called %q, %v", name, err)
	}
}

// TestStir gives the kernel's own pool something, with and without a host that has randomness.
func TestStir(t *testing.T) {
	host := filepath.Join(t.TempDir(), "hwrng")
	if note, err := (random{pool: poolFile, host: host}).stir(t.Context()); err != nil || !strings.Contains(note, "no such file") {
		t.Errorf("without a host: %q, %v", note, err)
	}
	if err := os.WriteFile(host, make([]byte, entropyBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if note, err := (random{pool: poolFile, host: host}).stir(t.Context()); err != nil || note != "" {
		t.Errorf("with a host: %q, %v", note, err)
	}
	if note, err := (random{pool: poolFile, host: hostRandom}).stir(t.Context()); err != nil {
		t.Errorf("this machine's: %q, %v", note, err)
	} else {
		t.Logf("this machine's host: %q", note)
	}
}

// TestBootID covers the kernel's boot id twice: there is one mount, and another id each time.
func TestBootID(t *testing.T) {
	b := bootID{kernel: kernelID, cover: filepath.Join(t.TempDir(), "boot_id")}
	kernel, err := os.ReadFile(kernelID)
	if err != nil {
		t.Fatal(err)
	}
	alone(t, unix.CLONE_NEWNS, func(t *testing.T) {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		last := string(kernel)
		for range 3 {
			if err := b.renew(); err != nil {
				t.Error(err)
				return
			}
			got, err := os.ReadFile(kernelID)
			if err != nil || string(got) == last || len(got) != len(kernel) {
				t.Errorf("got %q after %q, %v", got, last, err)
			}
			last = string(got)
		}
		mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
		if n := strings.Count(string(mounts), " "+kernelID+" "); err != nil || n != 1 {
			t.Errorf("%d mounts, %v", n, err)
		}
	})
	if now, err := os.ReadFile(kernelID); err != nil || string(now) != string(kernel) {
		t.Errorf("the host's boot id is now %q, %v", now, err)
	}
}
