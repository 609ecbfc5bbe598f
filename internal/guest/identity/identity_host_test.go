//go:build hosttest

package identity

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/mmds"
)

// TestApply names a machine twice, in namespaces of its own.
func TestApply(t *testing.T) {
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := errors.Join(
			unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWUTS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/etc", "tmpfs", 0, ""),
		); err != nil {
			t.Errorf("namespaces: %v", err)
			return
		}
		if err := Apply(mmds.Document{Hostname: "first", DNS: "9.9.9.9"}, fail(t)); err != nil {
			t.Error(err)
		}
		check(t, "first")
		if err := Rename("second", fail(t)); err != nil {
			t.Error(err)
		}
		check(t, "second")
		if err := Rename("", fail(t)); err != nil {
			t.Error(err)
		}
		check(t, defaultName)
		if conf, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(conf) != "nameserver 9.9.9.9\n" {
			t.Errorf("resolv.conf has %q, %v", conf, err)
		}
	}()
	<-done
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the host is now called %q, %v", after, err)
	}
}

// check is about this thread's machine; os.Hostname asks /proc, which may show another thread's.
func check(t *testing.T, name string) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Nodename[:]) != name {
		t.Errorf("the machine is called %q, %v; want %q", u.Nodename, err, name)
	}
	want := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 " + name + "\n"
	if hosts, err := os.ReadFile("/etc/hosts"); err != nil || string(hosts) != want {
		t.Errorf("hosts has %q, %v", hosts, err)
	}
}
