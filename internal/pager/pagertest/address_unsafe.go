package pagertest

import "unsafe"

// address is where mapped memory lies.
func address(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }
