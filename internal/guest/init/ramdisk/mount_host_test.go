//go:build hosttest

package ramdisk

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/init/cmdline"
)

// TestPopulate builds the tree below a root whose folders are links out of it.
func TestPopulate(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{"lib": "/usr/lib", "proc": filepath.Join("..", "..", "..", "realproc"), "dev": "/real/dev"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"usr/lib", "realproc", "real/dev"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		populated(t, dir)
	}()
	<-done
}

func populated(t *testing.T, dir string) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Errorf("new namespace: %v", err)
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Error(err)
		return
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(root)
	proc, err := filesystem("proc", unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(proc)
	if _, err := readArgs(proc); err != nil {
		t.Logf("this machine's own command line: %v", err) // it need not be one of ours
	}
	dev, err := filesystem("tmpfs", unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(dev)
	if err := populate(root, cmdline.Args{Modules: filepath.Join(dir, "no-such-drive")}, proc, dev); err != nil {
		t.Errorf("populate: %v", err)
		return
	}
	for path, want := range map[string]int64{"realproc": unix.PROC_SUPER_MAGIC, "real/dev": unix.TMPFS_MAGIC} {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(dir, path), &st); err != nil || st.Type != want {
			t.Errorf("%s has file system %#x, %v; want %#x", path, st.Type, err, want)
		}
	}
}
