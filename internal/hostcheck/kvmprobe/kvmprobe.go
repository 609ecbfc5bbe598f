// Package kvmprobe finds out whether a KVM can run a Linux guest, by running small ones.
//
// A /dev/kvm that opens, and even one with every capability, may not be able to: some clouds offer a paravirtual KVM that
// emulates a guest's privileged instructions and knows only some of them. So each probe runs the instructions that an
// ordinary kernel uses while it boots, a few at a time, and looks whether the guest comes out at their end.
package kvmprobe

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrUnfit is what Run fails with when KVM is there but can't run a Linux guest.
var ErrUnfit = errors.New("this KVM can't run a Linux guest")

// patience bounds one probe. A guest of a dozen instructions that has not ended by then never will.
const patience = 20 * time.Second

// mode is the state that a probe's guest starts in.
type mode int

const (
	real mode = iota // 16 bits, no paging: how every x86 starts
	long             // 64 bits with paging: where a kernel lives
)

// probe is a guest of a few instructions, which ends with a write to exitPort.
type probe struct {
	name string
	mode mode
	code []byte
}

// exitPort is where a guest writes to say that it came to its end: 0x80, which real machines use for the same.
const exitPort = 0x80

// end is "out 0x80, al".
var end = []byte{0xe6, exitPort}

// probes in order: the first that fails is the one that is told.
var probes = []probe{
	{"run in real mode", real, []byte{0xb0, 0x42}},                                    // mov al, 0x42
	{"run in long mode with paging", long, []byte{0xb0, 0x42}},                        // mov al, 0x42
	{"CPUID", long, []byte{0x31, 0xc0, 0x0f, 0xa2}},                                   // xor eax, eax; cpuid
	{"RDMSR and WRMSR", long, []byte{0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30}}, // mov ecx, EFER; rdmsr; wrmsr
	{"load CR3", long, []byte{0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8}},                    // mov rax, cr3; mov cr3, rax
	{"set CR4.PGE", long, []byte{0x0f, 0x20, 0xe0, 0x48, 0x0d, 0x80, 0, 0, 0, 0x0f, 0x22, 0xe0}},
	{"load the descriptor tables", long, []byte{0x0f, 0x01, 0x14, 0x25, 0, 2, 1, 0, 0x0f, 0x01, 0x1c, 0x25, 0, 2, 1, 0}}, // lgdt, lidt [0x10200]
	{"INVLPG", long, []byte{0x0f, 0x01, 0x3c, 0x25, 0, 0, 0, 0}},
	{"SWAPGS", long, []byte{0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8}},
	{"WBINVD", long, []byte{0x0f, 0x09}},
	// mov rax, cr4; or OSFXSR; mov cr4, rax; movaps xmm0, xmm1
	{"SSE", long, []byte{0x0f, 0x20, 0xe0, 0x48, 0x0d, 0, 2, 0, 0, 0x0f, 0x22, 0xe0, 0x0f, 0x28, 0xc1}},
	// mov rax, cr4; or OSXSAVE; mov cr4, rax; xor ecx, ecx; xgetbv; xsetbv
	{"XGETBV and XSETBV", long, []byte{0x0f, 0x20, 0xe0, 0x48, 0x0d, 0, 0, 4, 0, 0x0f, 0x22, 0xe0, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0x0f, 0x01, 0xd1}},
}

// Run runs every probe on the KVM at path. It fails with what open fails with when there is none, and with ErrUnfit and
// the reason when it is there but no Linux guest would run. It leaves nothing behind.
func Run(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := capable(int(f.Fd())); err != nil {
		return err
	}
	for _, p := range probes {
		if err := p.run(int(f.Fd())); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnfit, p.name, err)
		}
	}
	return nil
}

// capabilities are the numbers of the KVM extensions that Firecracker needs on x86 (its src/vmm/src/arch/x86_64/kvm.rs).
var capabilities = map[uintptr]string{
	0: "IRQCHIP", 3: "USER_MEMORY", 4: "SET_TSS_ADDR", 7: "EXT_CPUID", 14: "MP_STATE", 32: "IRQFD", 33: "PIT2", 35: "PIT_STATE2",
	36: "IOEVENTFD", 39: "ADJUST_CLOCK", 41: "VCPU_EVENTS", 50: "DEBUGREGS", 55: "XSAVE", 56: "XCRS",
}

// apiVersion is the only version of KVM's interface there has been since 2007.
const apiVersion = 12
