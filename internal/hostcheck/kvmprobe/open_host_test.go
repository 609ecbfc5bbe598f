//go:build hosttest

package kvmprobe

import (
	"os"
	"testing"
)

func open(t *testing.T) int {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}
