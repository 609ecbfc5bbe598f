package clone

import (
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addEntropy mixes data into the kernel's random pool and counts bits of it as random. It takes root.
func addEntropy(pool *os.File, data []byte, bits int) error {
	// struct rand_pool_info: int entropy_count, int buf_size, then the data.
	info := make([]byte, 0, 8+len(data))
	info = binary.NativeEndian.AppendUint32(info, uint32(bits))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(data)))
	info = append(info, data...)
	defer clear(info)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, pool.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	runtime.KeepAlive(info)
	if errno != 0 {
		return os.NewSyscallError("RNDADDENTROPY", errno)
	}
	return nil
}

// reseed makes the kernel's generator take a new key from the pool. It takes root.
func reseed(pool *os.File) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, pool.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return os.NewSyscallError("RNDRESEEDCRNG", errno)
	}
	return nil
}
