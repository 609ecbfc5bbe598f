package vmmtest

import "golang.org/x/sys/unix"

// allocated is how many blocks of 512 bytes a file takes.
func allocated(path string) (int64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Blocks, err
}
