//go:build hosttest

package uffdtest

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/pager/uffd"
)

// real is memory of the test's own process. It is only ever touched from within system calls: a thread that sleeps in a fault of
// its own code would hold up the garbage collector, and with it the goroutine that is to serve the fault.
type real struct {
	t   *testing.T
	fd  *uffd.FD
	mem []byte
}

func newReal(t *testing.T) Machine {
	mem, err := unix.Mmap(-1, 0, 8*Page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := uffd.Open(uffd.FeatureRemove)
	if err != nil {
		t.Fatal(err)
	}
	r := &real{t, fd, mem}
	if err := fd.Register(r.Base(), uint64(len(mem))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fd.Close(); err != nil { // before the memory goes: threads that still wait go on
			t.Error(err)
		}
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *real) Memory() uffd.Memory { return r.fd }

func (r *real) Base() uint64 { return uint64(uintptr(unsafe.Pointer(&r.mem[0]))) }

func (r *real) Touch(page int) <-chan byte {
	c := make(chan byte, 1)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		var b [1]byte
		_, err := unix.Write(p[1], r.mem[page*Page:page*Page+1])
		if err == nil {
			_, err = unix.Read(p[0], b[:])
		}
		if err != nil {
			r.t.Error(err)
		}
		_, _ = unix.Close(p[0]), unix.Close(p[1])
		c <- b[0]
	}()
	return c
}

func (r *real) Remove(page, n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := unix.Madvise(r.mem[page*Page:(page+n)*Page], unix.MADV_DONTNEED); err != nil {
			r.t.Error(err)
		}
	}()
	return done
}

func TestTheRealOne(t *testing.T) { Run(t, newReal) }
