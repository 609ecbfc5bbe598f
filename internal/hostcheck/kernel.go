package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/disk/devmapper/dm"
	"wrenn.dev/wrenn/internal/hostcheck/kvmprobe"
	"wrenn.dev/wrenn/internal/network/linux"
)

// maxFile bounds what is read of a file of the system.
const maxFile = 1 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// needed are the capabilities that the work of a host takes, by their numbers.
var needed = map[int]string{
	unix.CAP_CHOWN: "CHOWN", unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE", unix.CAP_FOWNER: "FOWNER", unix.CAP_KILL: "KILL",
	unix.CAP_SETGID: "SETGID", unix.CAP_SETUID: "SETUID", unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_SYS_CHROOT: "SYS_CHROOT",
	unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_SYS_ADMIN: "SYS_ADMIN", unix.CAP_MKNOD: "MKNOD",
}

// privileges looks for root and its capabilities, which a container may have taken away.
func (h host) privileges(context.Context) []Item {
	status, err := read(h.proc, "self/status")
	if err != nil {
		return failed("privileges", err, "mount /proc")
	}
	fields := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	uids := strings.Fields(fields["Uid"])
	if len(uids) < 2 || uids[1] != "0" {
		return fail("privileges", "this is not root", "run it with sudo")
	}
	caps, err := strconv.ParseUint(fields["CapEff"], 16, 64)
	if err != nil {
		return failed("privileges", err, "mount /proc")
	}
	var missing []string
	for number, name := range needed {
		if caps&(1<<number) == 0 {
			missing = append(missing, "CAP_"+name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fail("privileges", "root without "+strings.Join(missing, ", "), "run it on the host itself, or in a container with --privileged")
	}
	return ok("privileges", "root with every capability that is needed")
}

// The oldest kernel that Firecracker supports.
const oldestMajor, oldestMinor = 5, 10

func (h host) kernel(context.Context) []Item {
	release, err := read(h.proc, "sys/kernel/osrelease")
	if err != nil {
		return failed("kernel", err, "mount /proc")
	}
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return warn("kernel", release, "its version can't be read; 5.10 or newer is needed")
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fail("kernel", release, "install 5.10 or newer")
	}
	return ok("kernel", "%s", release)
}

// kvm runs guests of a few instructions: some clouds' /dev/kvm opens and still can't run a Linux guest.
func (h host) kvm(context.Context) []Item {
	path := filepath.Join(h.dev, "kvm")
	err := kvmprobe.Run(path)
	switch {
	case err == nil:
		return ok("kvm", "runs a guest")
	case errors.Is(err, fs.ErrNotExist):
		return failed("kvm", err, "turn virtualization on in the firmware, or nested virtualization for this machine; then modprobe kvm_intel or kvm_amd")
	case errors.Is(err, fs.ErrPermission):
		return failed("kvm", err, "run it with sudo")
	case errors.Is(err, kvmprobe.ErrUnfit):
		return failed("kvm", err, "use a machine with hardware virtualization, or with nested virtualization turned on")
	}
	return failed("kvm", err, "see the kernel's log")
}

// targets are the device-mapper's target types that disks are made of.
var targets = []string{"snapshot", "linear", "zero"}

func (h host) deviceMapper(context.Context) []Item {
	const name = "dm-snapshot"
	c, err := dm.Open()
	if err != nil {
		return failed(name, err, "modprobe dm_mod dm_snapshot")
	}
	defer c.Close()
	for _, target := range targets {
		if _, err := c.TargetVersion(target); err != nil {
			return failed(name, err, "modprobe dm_"+target)
		}
	}
	return ok(name, "device-mapper has %s", strings.Join(targets, ", "))
}

func (h host) loop(context.Context) []Item {
	return h.opens("loop", "loop-control", "modprobe loop")
}

func (h host) userfaultfd(context.Context) []Item {
	const name = "userfaultfd"
	if items := h.opens(name, "userfaultfd", ""); items[0].State == OK {
		return items
	}
	// Before 6.1 there is no device, but the system call.
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return fail(name, errno.Error(), "use a kernel with CONFIG_USERFAULTFD; without it a sandbox can't be resumed lazily")
	}
	_ = unix.Close(int(fd))
	return ok(name, "by system call")
}

// opens looks whether a device can be opened, which makes the kernel load its module.
func (h host) opens(name, device, fix string) []Item {
	path := filepath.Join(h.dev, device)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return failed(name, err, fix)
	}
	_ = f.Close()
	return ok(name, "%s opens", path)
}

// controllers are the cgroup controllers that limit a machine.
var controllers = []string{"cpu", "memory", "pids"}

func (h host) cgroups(context.Context) []Item {
	const name = "cgroup v2"
	have, err := read(h.sys, "fs/cgroup/cgroup.controllers")
	if err != nil {
		return failed(name, err, "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup")
	}
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(have), c) {
			return fail(name, "the controller "+c+" is not there", "boot with cgroup_enable="+c+", and keep cgroup v1 from taking it")
		}
	}
	return ok(name, "controllers %s", strings.Join(controllers, ", "))
}

// network puts a slot's links and rules into a namespace without a name.
func (h host) network(context.Context) []Item {
	items := h.opens("tun", "net/tun", "modprobe tun")
	if items[0].State != OK {
		return append(items, fail("nftables", "not tried without tun", "see tun")...)
	}
	if err := linux.Probe(); err != nil {
		return append(items, failed("nftables", err, "modprobe nf_tables nft_chain_nat nft_masq nft_ct nft_reject_inet nft_connlimit veth")...)
	}
	return append(items, ok("nftables", "a sandbox's links and rules go into a network namespace")...)
}
