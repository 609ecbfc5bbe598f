// Agent is the first program of the emulated host. It is started three times, under three names: by the kernel as init of the
// initramfs, where it mounts the root disk; as PID 1 of that disk, where it brings the host up and reaps what is orphaned, or has
// systemd do that; and as the server that answers heartbeats and runs commands.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The agent's places once the initramfs is gone, on a tmpfs of their own.
const (
	home       = "/run/kvmhost"
	initPath   = home + "/kvmhost-init"
	serverPath = home + "/kvmhost-server"
)

func main() {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "init":
		err = enterRoot()
	case filepath.Base(initPath):
		err = bringUp()
	case filepath.Base(serverPath):
		err = serve()
	default:
		err = fmt.Errorf("started as %q, and not by the emulated host", os.Args[0])
	}
	fmt.Fprintln(os.Stderr, "kvmhost agent:", err)
	if os.Getpid() == 1 {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU, told not to reboot, ends
	}
	os.Exit(1)
}
