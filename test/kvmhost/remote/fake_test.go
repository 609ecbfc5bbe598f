package remote

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// socketPair is what the tool has on its side of a virtio-serial port: a buffered stream without a name.
func socketPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// discard is a channel whose output goes nowhere.
type discard struct{ ssh.Channel }

func (discard) Stderr() io.ReadWriter { return new(bytes.Buffer) }

// lockedBuffer is a bytes.Buffer for concurrent use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
