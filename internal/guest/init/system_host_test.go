//go:build hosttest

package guestinit

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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

func TestBringUp(t *testing.T) {
	alone(t, unix.CLONE_NEWNET, func(t *testing.T) {
		if up, err := bringUp(); up || err != nil {
			t.Errorf("without an interface: %v, %v", up, err)
		}
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: device}, PeerName: "peer"}
		if err := netlink.LinkAdd(pair); err != nil {
			t.Errorf("make an interface: %v", err)
			return
		}
		for range 2 { // what is there already is no error
			if up, err := bringUp(); !up || err != nil {
				t.Errorf("bringUp = %v, %v", up, err)
				return
			}
		}
		link, err := netlink.LinkByName(device)
		if err != nil {
			t.Error(err)
			return
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != address {
			t.Errorf("addresses %v, %v", addrs, err)
		}
		list, err := netlink.RouteList(link, netlink.FAMILY_V4)
		if err != nil {
			t.Error(err)
		}
		var got []string
		for _, r := range list {
			got = append(got, r.Dst.String()+" "+r.Gw.String())
		}
		for _, want := range []string{"0.0.0.0/0 " + gateway, "169.254.169.254/32 <nil>"} {
			if !slices.Contains(got, want) {
				t.Errorf("no route %q in %q", want, got)
			}
		}
	})
}

func TestMountAll(t *testing.T) {
	root := t.TempDir()
	alone(t, unix.CLONE_NEWNS, func(t *testing.T) {
		if err := errors.Join(
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", root, "tmpfs", 0, ""),
			unix.Chroot(root),
			os.Chdir("/"),
		); err != nil {
			t.Errorf("a root of its own: %v", err)
			return
		}
		if err := mountAll(); err != nil {
			t.Errorf("mountAll: %v", err)
			return
		}
		for _, m := range mounts {
			var here, above unix.Stat_t
			if err := errors.Join(unix.Stat(m.target, &here), unix.Stat(filepath.Dir(m.target), &above)); err != nil || here.Dev == above.Dev {
				t.Errorf("%s is not mounted: %v", m.target, err)
			}
		}
		for _, f := range folders {
			if info, err := os.Stat(f.path); err != nil || info.Mode()&^os.ModeDir != f.mode {
				t.Errorf("%s: %v, %v", f.path, info, err)
			}
		}
		if target, err := os.Readlink("/dev/fd"); err != nil || target != "/proc/self/fd" {
			t.Errorf("/dev/fd leads to %q, %v", target, err)
		}
	})
}
