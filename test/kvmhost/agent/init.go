package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/test/kvmhost/layout"
)

// settings are kernel parameters. A kernel that has lost its footing ends at once, which is seen from outside.
var settings = map[string]string{
	"kernel/panic_on_oops":        "1",
	"kernel/printk":               "1 4 1 7", // KVM speaks at every guest's boot, and every byte on the console costs an exit
	"kernel/yama/ptrace_scope":    "0",
	"net/ipv6/conf/all/accept_ra": "0",
}

// bringUp runs as PID 1: it mounts what a host has, loads modules, sets up the network, starts the server and reaps, or leaves the rest to
// systemd. It returns only errors.
func bringUp() error {
	_ = os.Setenv("PATH", layout.Path)
	_ = os.Setenv("HOME", "/root")
	_ = os.Setenv("LANG", "C.UTF-8")
	for _, step := range []func() error{mountSystem, loadModules, writeSettings, mountDisks, startNetwork} {
		if err := step(); err != nil {
			return err
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(line)), layout.SystemdInit) {
		return becomeSystemd()
	}
	if err := delegateControllers(); err != nil {
		return err
	}
	return superviseServer()
}

func mountSystem() error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, at string
		flags    uintptr
		data     string
	}{
		{"proc", "/proc", plain, ""},
		{"sysfs", "/sys", plain, ""},
		{"cgroup2", "/sys/fs/cgroup", plain, "nsdelegate"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, ""},
	} {
		if err := mount(m.kind, m.at, m.flags, m.data); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, "/dev/"+link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	// As systemd does it, so that a mount made in a namespace of a test's own behaves as on an ordinary host.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func loadModules() error { return command("modprobe", append([]string{"-a"}, layout.Modules...)...) }

func writeSettings() error {
	for name, value := range settings {
		err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return unix.Sethostname([]byte("kvmhost"))
}

// delegateControllers makes the controllers available below the root cgroup, as systemd does.
func delegateControllers() error {
	return os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu +cpuset +memory +pids +io"), 0)
}

// mountDisks mounts what the tool attached, told apart by the serial numbers that it gave the drives.
func mountDisks() error {
	disks, err := filepath.Glob("/sys/block/vd*")
	if err != nil {
		return err
	}
	for _, disk := range disks {
		serial, err := os.ReadFile(disk + "/serial")
		if err != nil {
			return err
		}
		m, ok := layout.Mounts[strings.TrimRight(string(serial), "\x00\n")]
		if !ok {
			continue
		}
		flags := uintptr(unix.MS_NOATIME)
		if m.ReadOnly {
			flags |= unix.MS_RDONLY
		}
		if err := os.MkdirAll(m.At, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+filepath.Base(disk), m.At, m.Kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.At, err)
		}
	}
	return nil
}

// startNetwork gives the host the address that QEMU's user network has for it.
func startNetwork() error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "set", "eth0", "up"},
		{"addr", "add", "10.0.2.15/24", "dev", "eth0"},
		{"route", "add", "default", "via", "10.0.2.2"},
	} {
		if err := command("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// superviseServer starts the server and reaps every orphan until the server ends.
func superviseServer() error {
	if err := os.Link(initPath, serverPath); err != nil {
		return err
	}
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ(), Dir: "/root"}
	proc, err := os.StartProcess(serverPath, []string{serverPath}, attr)
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if pid == proc.Pid {
			return fmt.Errorf("the server ended with status %#x", uint32(status))
		}
	}
}
