package kvmprobe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KVM's ioctls (linux/kvm.h); the structures below are its too.
const (
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmCheckExtension      = 0xae03
	kvmGetVCPUMmapSize     = 0xae04
	kvmGetSupportedCPUID   = 0xc008ae05
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmSetTSSAddr          = 0xae47
	kvmCreateIRQChip       = 0xae60
	kvmRun                 = 0xae80
	kvmSetRegs             = 0x4090ae82
	kvmGetSregs            = 0x8138ae83
	kvmSetSregs            = 0x4138ae84
	kvmSetCPUID2           = 0x4008ae90
)

// Exit reasons and the places of fields in struct kvm_run.
const (
	exitIO           = 2
	exitShutdown     = 8
	exitFailEntry    = 9
	exitInternal     = 17
	runImmediateExit = 1
	runExitReason    = 8
	runIOPort        = 34 // of the union's io member: direction, size, port
	runSuberror      = 32
)

type memoryRegion struct {
	slot, flags       uint32
	guest, size, user uint64
}

type segment struct {
	base                                 uint64
	limit                                uint32
	selector                             uint16
	kind, present, dpl, db, s, l, g, avl uint8
	unusable, _                          uint8
}

type table struct {
	base  uint64
	limit uint16
	_     [3]uint16
}

type sregs struct {
	cs, ds, es, fs, gs, ss, tr, ldt segment
	gdt, idt                        table
	cr0, cr2, cr3, cr4, cr8         uint64
	efer, apicBase                  uint64
	interrupts                      [4]uint64
}

type regs struct {
	rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags uint64
}

// maxCPUID is how many entries a CPUID table can have.
const maxCPUID = 256

type cpuid struct {
	n, _    uint32
	entries [maxCPUID][40]byte
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		switch {
		case errno == unix.EINTR && request != kvmRun:
			continue // the runtime signals its threads
		case errno != 0:
			return 0, errno
		}
		return int(r), nil
	}
}

// capable checks version and capabilities.
func capable(kvm int) error {
	if v, err := ioctl(kvm, kvmGetAPIVersion, 0); err != nil || v != apiVersion {
		return fmt.Errorf("%w: its interface has version %d (%v), want %d", ErrUnfit, v, err, apiVersion)
	}
	for number, name := range capabilities {
		if v, err := ioctl(kvm, kvmCheckExtension, number); err != nil || v == 0 {
			return fmt.Errorf("%w: it lacks the capability %s", ErrUnfit, name)
		}
	}
	return nil
}

// Where things are in the guest's memory.
const (
	memoryBytes = 2 << 20
	pageTables  = 0x1000 // three levels, one page each
	stackTop    = 0x7000
	codeAt      = 0x8000
	gdtAt       = 0x10000
	gdtPointer  = 0x10200 // limit and base, as lgdt and lidt read them
)

// run makes a machine of one virtual CPU, runs the probe on it, and takes it apart.
func (p probe) run(kvm int) error {
	vm, err := ioctl(kvm, kvmCreateVM, 0)
	if err != nil {
		return fmt.Errorf("make a VM: %w", err)
	}
	defer unix.Close(vm)
	if _, err := ioctl(vm, kvmSetTSSAddr, 0xfffbd000); err != nil {
		return fmt.Errorf("set the TSS address: %w", err)
	}
	if _, err := ioctl(vm, kvmCreateIRQChip, 0); err != nil {
		return fmt.Errorf("make an interrupt controller: %w", err)
	}
	mem, err := unix.Mmap(-1, 0, memoryBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(mem) }()
	p.load(mem)
	region := memoryRegion{size: memoryBytes, user: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if _, err := ioctl(vm, kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return fmt.Errorf("give it memory: %w", err)
	}
	cpu, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return fmt.Errorf("make a virtual CPU: %w", err)
	}
	defer unix.Close(cpu)
	if err := p.prepare(kvm, cpu); err != nil {
		return err
	}
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return err
	}
	shared, err := unix.Mmap(cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(shared) }()
	return enter(cpu, shared)
}

// load writes the probe's code and the tables that long mode needs.
func (p probe) load(mem []byte) {
	copy(mem[codeAt:], p.code)
	copy(mem[codeAt+len(p.code):], end)
	put := func(at int, v uint64) { *(*uint64)(unsafe.Pointer(&mem[at])) = v }
	put(pageTables, pageTables+0x1000|3)
	put(pageTables+0x1000, pageTables+0x2000|3)
	put(pageTables+0x2000, 0x83) // one page of 2 MiB, at 0
	put(gdtAt+8, 0x00af9b000000ffff)
	put(gdtAt+16, 0x00cf93000000ffff)
	put(gdtPointer, 0x17|gdtAt<<16)
}

// prepare sets the CPU's registers and tables.
func (p probe) prepare(kvm, cpu int) error {
	ids := cpuid{n: maxCPUID}
	if _, err := ioctl(kvm, kvmGetSupportedCPUID, uintptr(unsafe.Pointer(&ids))); err != nil {
		return fmt.Errorf("read the supported CPUID: %w", err)
	}
	if _, err := ioctl(cpu, kvmSetCPUID2, uintptr(unsafe.Pointer(&ids))); err != nil {
		return fmt.Errorf("set CPUID: %w", err)
	}
	var s sregs
	if _, err := ioctl(cpu, kvmGetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("read registers: %w", err)
	}
	s.cs.base, s.cs.selector = 0, 0
	if p.mode == long {
		code := segment{limit: 0xffffffff, selector: 8, kind: 11, present: 1, s: 1, l: 1, g: 1}
		data := segment{limit: 0xffffffff, selector: 16, kind: 3, present: 1, s: 1, db: 1, g: 1}
		s.cs, s.ds, s.es, s.fs, s.gs, s.ss = code, data, data, data, data, data
		s.gdt = table{base: gdtAt, limit: 0x17}
		s.cr3, s.cr4, s.cr0, s.efer = pageTables, 0x20, 0x80000011, 0x500
	}
	if _, err := ioctl(cpu, kvmSetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("set system registers: %w", err)
	}
	r := regs{rip: codeAt, rsp: stackTop, rflags: 2}
	if _, err := ioctl(cpu, kvmSetRegs, uintptr(unsafe.Pointer(&r))); err != nil {
		return fmt.Errorf("set registers: %w", err)
	}
	return nil
}

var errStuck = errors.New("the guest does not come to its end")

// enter runs the CPU until the guest's end, or until patience runs out: then a signal brings the thread out of it.
func enter(cpu int, shared []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	stuck := time.AfterFunc(patience, func() {
		shared[runImmediateExit] = 1
		_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
	})
	defer stuck.Stop()
	for {
		_, err := ioctl(cpu, kvmRun, 0)
		switch {
		case errors.Is(err, unix.EINTR) && shared[runImmediateExit] == 1:
			return errStuck
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // the runtime signals its threads too
		case err != nil:
			return err
		}
		return outcome(shared)
	}
}

// outcome says how the guest came out.
func outcome(shared []byte) error {
	word := func(at int) uint32 { return *(*uint32)(unsafe.Pointer(&shared[at])) }
	switch reason := word(runExitReason); reason {
	case exitIO:
		if port := *(*uint16)(unsafe.Pointer(&shared[runIOPort])); port != exitPort {
			return fmt.Errorf("the guest wrote to port %#x", port)
		}
		return nil
	case exitShutdown:
		return errors.New("the guest had a triple fault")
	case exitInternal:
		return fmt.Errorf("internal error %d of KVM (1: it can't emulate the instruction)", word(runSuberror))
	case exitFailEntry:
		return errors.New("the CPU refused to enter the guest")
	default:
		return fmt.Errorf("KVM left the guest for the unexpected reason %d", reason)
	}
}
