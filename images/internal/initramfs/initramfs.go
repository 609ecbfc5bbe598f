// Package initramfs writes the guest's initial file system: a cpio archive of the "newc" kind, the same bytes for the same
// files. It is not compressed: the kernel would have to decompress it at each boot.
package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"path"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/init/modules"
	"wrenn.dev/wrenn/internal/guest/init/ramdisk"
)

// Module is a kernel module, uncompressed.
type Module struct {
	Name     string // as package modules has it
	Data     []byte
	Optional bool // the machine goes on when it refuses the module
}

// Write writes the archive: the program as /init, the modules in the order they are to be loaded, and the few devices that a
// program needs to start at all.
func Write(w io.Writer, init []byte, mods []Module) error {
	var a archive
	a.folder("dev")
	a.device("dev/console", 5, 1)
	a.device("dev/null", 1, 3)
	a.device("dev/kmsg", 1, 11)
	a.folder(path.Base(ramdisk.NewRoot))
	a.folder(path.Base(ramdisk.ModuleDir))
	for i, m := range mods {
		end := ".ko"
		if m.Optional {
			end = ramdisk.Optional
		}
		a.file(fmt.Sprintf("%s/%02d-%s%s", path.Base(ramdisk.ModuleDir), i, modules.Name(m.Name), end), 0o600, m.Data)
	}
	a.file("init", 0o700, init)
	a.add(header{name: "TRAILER!!!"}, nil)
	_, err := w.Write(a.out.Bytes())
	return err
}

// archive is what has been written so far.
type archive struct {
	out   bytes.Buffer
	inode int
}

// header is what differs between the entries. All of them belong to root and have no time.
type header struct {
	name         string
	mode         uint32
	major, minor int // of a device
}

func (a *archive) folder(name string) { a.add(header{name: name, mode: unix.S_IFDIR | 0o700}, nil) }

func (a *archive) device(name string, major, minor int) {
	a.add(header{name: name, mode: unix.S_IFCHR | 0o600, major: major, minor: minor}, nil)
}

func (a *archive) file(name string, perm uint32, data []byte) {
	a.add(header{name: name, mode: unix.S_IFREG | perm}, data)
}

// add writes an entry: a magic number and thirteen numbers of eight hex digits, the name, the data, both padded to four bytes.
func (a *archive) add(h header, data []byte) {
	a.inode++
	a.out.WriteString("070701")
	const uid, gid, links, mtime, devMajor, devMinor, checksum = 0, 0, 1, 0, 0, 0, 0
	for _, field := range []int{
		a.inode, int(h.mode), uid, gid, links, mtime, len(data), devMajor, devMinor, h.major, h.minor, len(h.name) + 1, checksum,
	} {
		fmt.Fprintf(&a.out, "%08x", field)
	}
	a.out.WriteString(h.name)
	a.out.WriteByte(0)
	a.pad()
	a.out.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.out.Len()%4 != 0 {
		a.out.WriteByte(0)
	}
}
