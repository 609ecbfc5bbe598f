// Package machine runs QEMU as an emulated machine: it starts it, watches over it by a heartbeat that also keeps it awake,
// tells how it was lost, and ends it. The machine ends with the process that started it, whatever that dies of.
//
// QEMU's flags are measured, not guessed. One CPU: with two, races in QEMU's emulation kill the kernel inside within minutes.
// The CPU has SVM and nested paging, for KVM inside, and an invariant TSC, without which KVM's guests get no clock device.
package machine

import (
	"fmt"
	"strconv"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/layout"
)

// Config is a machine.
type Config struct {
	Tools  string // the Debian tree that has QEMU
	Kernel string // a bzImage
	Initrd string
	Disks  []Disk
	Memory int // MiB

	Forwards []Forward

	// Parameters are the kernel's, besides those that every machine has.
	Parameters []string

	// Temp is a folder for what is written to the disks. Nothing in it is needed or has a name once the machine runs.
	Temp string
}

// Disk is a raw image. The machine sees it under its serial number, in the order of Config.Disks.
type Disk struct {
	Serial string
	Path   string

	// ReadOnly disks can't be written inside. What is written to any other disk is gone with the machine, so that machines share
	// images, unless it is Kept: then it is in the image, which no other machine may have.
	ReadOnly, Kept bool
}

// Forward makes a port inside reachable on 127.0.0.1 outside.
type Forward struct{ Host, Guest int }

// ParseForward reads "HOSTPORT:GUESTPORT".
func ParseForward(s string) (Forward, error) {
	host, guest, ok := strings.Cut(s, ":")
	h, errHost := strconv.ParseUint(host, 10, 16)
	g, errGuest := strconv.ParseUint(guest, 10, 16)
	if !ok || errHost != nil || errGuest != nil || h == 0 || g == 0 {
		return Forward{}, errs.Field("--forward", fmt.Sprintf("%q is not two ports", s), "give HOSTPORT:GUESTPORT, as 8080:80")
	}
	return Forward{Host: int(h), Guest: int(g)}, nil
}

// String is what ParseForward reads.
func (f Forward) String() string { return fmt.Sprintf("%d:%d", f.Host, f.Guest) }

// commandLine is the kernel's. The console is for the agent's last words and the kernel's.
const commandLine = "quiet panic=-1 tsc=reliable clocksource=tsc console=ttyS0"

// The file descriptors that QEMU inherits.
const (
	heartbeatFD = 3 + iota
	controlFD
	monitorFD
)

// args are QEMU's.
func (c Config) args() []string {
	args := []string{
		"-name", "wrenn-kvmhost",
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-machine", "q35",
		"-accel", "tcg,thread=multi",
		"-cpu", "EPYC,+svm,+npt,+invtsc",
		"-smp", "1",
		"-m", strconv.Itoa(c.Memory),
		"-kernel", c.Kernel, "-initrd", c.Initrd, "-append", strings.Join(append([]string{commandLine}, c.Parameters...), " "),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-device", "virtio-serial-pci",
		"-device", "virtio-rng-pci",
	}
	for _, port := range []struct {
		name string
		fd   int
	}{{layout.HeartbeatPort, heartbeatFD}, {layout.ControlPort, controlFD}} {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", port.name, port.fd),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", port.name, port.name))
	}
	for _, d := range c.Disks {
		mode := "snapshot=on,cache=unsafe,discard=unmap"
		switch {
		case d.ReadOnly:
			mode = "readonly=on"
		case d.Kept: // QEMU may be killed: what it has handed to this machine's kernel is there all the same
			mode = "cache=writeback,discard=unmap"
		}
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=%s,format=raw,file=%s,%s", d.Serial, escape(d.Path), mode),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", d.Serial, d.Serial))
	}
	net := "user,id=net,ipv6=off"
	for _, f := range c.Forwards {
		net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return append(args, "-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile=")
}

// escape makes a path fit for a QEMU option list, where a comma ends a value.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
