//go:build hosttest

package firecracker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// guestEnv says what the test guest does. The kernel gives what it does not know of its command line to init as environment.
const guestEnv = "WRENNTEST"

func init() {
	if mode := os.Getenv(guestEnv); mode != "" && os.Getpid() == 1 {
		testGuest(mode)
	}
}

// testGuest is the first process of a guest whose initramfs holds nothing but this test binary.
func testGuest(mode string) {
	_ = os.MkdirAll("/dev", 0o755)
	_ = unix.Mount("dev", "/dev", "devtmpfs", 0, "")
	switch mode {
	case "reboot":
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "memory":
		for {
			page := make([]byte, 1<<20)
			for i := 0; i < len(page); i += 4096 {
				page[i] = 1
			}
			hoard = append(hoard, page)
		}
	case "flood":
		if tty, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY, 0); err == nil {
			for {
				_, _ = tty.WriteString("\x1b[31mflood\x1b[0m\n")
			}
		}
	}
	for {
		_ = unix.Pause()
	}
}

var hoard [][]byte

// testInitramfs packs this test binary as /init, with the device nodes that a Go program needs before it runs.
var testInitramfs = sync.OnceValues(func() (string, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	var a archive
	a.add("dev", unix.S_IFDIR|0o755, 0, nil)
	a.add("dev/console", unix.S_IFCHR|0o600, unix.Mkdev(5, 1), nil)
	a.add("dev/null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3), nil)
	a.add("init", unix.S_IFREG|0o755, 0, self)
	a.add("TRAILER!!!", 0, 0, nil)
	dir, err := os.MkdirTemp("", "guest-*")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initramfs")
	return path, os.WriteFile(path, a.Bytes(), 0o444)
})

// archive is a cpio archive of the kernel's "newc" kind.
type archive struct {
	bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode uint32, dev uint64, data []byte) {
	a.inode++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, unix.Major(dev), unix.Minor(dev), len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

func initramfs(t *testing.T) string {
	t.Helper()
	path, err := testInitramfs()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
