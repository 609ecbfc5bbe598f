package leftovers

import (
	"io/fs"
	"syscall"
)

func deviceAndInode(info fs.FileInfo) (dev, ino uint64) {
	st := info.Sys().(*syscall.Stat_t)
	return st.Dev, st.Ino
}
