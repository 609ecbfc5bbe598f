//go:build hosttest

package kvmprobe

import "testing"

func TestThisHostsKVMRunsGuests(t *testing.T) {
	if err := Run("/dev/kvm"); err != nil {
		t.Fatal(err)
	}
}

// TestGuestsThatFail shows that a probe tells how a guest failed, and that one that never ends does not hold it up.
func TestGuestsThatFail(t *testing.T) {
	for name, code := range map[string][]byte{
		"fault":      {0x0f, 0x0b},       // ud2, with no interrupt table: a triple fault
		"other port": {0xe6, 0x81, 0xf4}, // out 0x81, al
		"endless":    {0xeb, 0xfe},       // jmp to itself
	} {
		t.Run(name, func(t *testing.T) {
			kvm := open(t)
			if err := (probe{name, long, code}).run(kvm); err == nil {
				t.Error("a guest that failed passed the probe")
			} else {
				t.Log(err)
			}
		})
	}
}
