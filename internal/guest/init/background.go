package guestinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/clock"
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
	"wrenn.dev/wrenn/internal/guest/init/modules"
	"wrenn.dev/wrenn/internal/guest/smallfile"
)

// BackgroundName is the name under which wrenn-init is started to do the background work.
const BackgroundName = "wrenn-init-background"

// moduleRoot is where the first stage mounts the kernel's modules.
const moduleRoot = "/lib/modules"

// runFolder holds what is written at run time.
const runFolder = "/run/wrenn"

// chronyd is where distributions have it.
var chronyd = []string{"/usr/sbin/chronyd", "/sbin/chronyd"}

// Background loads the driver of the host's randomness and becomes chronyd, which keeps the clock by the host's. What is not
// there is left out: a guest without a host's clock or without chronyd is whole.
func Background() error {
	loadRandomness()
	if _, err := os.Stat(clock.Device); err != nil {
		return nil
	}
	return becomeChronyd()
}

// loadRandomness: the kernel has some of its own at this point, from the CPU; more from the host does no harm to come late.
func loadRandomness() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		kmsg.Warn("kernel version: %v", err)
		return
	}
	dir := filepath.Join(moduleRoot, unix.ByteSliceToString(u.Release[:]))
	err := modules.Load(dir, "virtio_rng")
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
		kmsg.Warn("%v", err)
	}
}

// becomeChronyd replaces the process. It returns nil when there is no chronyd.
func becomeChronyd() error {
	for _, path := range chronyd {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		config := filepath.Join(runFolder, "chrony.conf")
		if err := os.MkdirAll(runFolder, 0o755); err != nil {
			return err
		}
		if err := smallfile.Replace(config, []byte(clock.Config(clock.Device))); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", path, unix.Exec(path, chronydArgs(config, chronydUser()), environment()))
	}
	return nil
}

// chronydArgs: in the foreground, with its own configuration, and once it has started with a real-time priority in place of
// the lowest that this process has: a clock is read late or never.
func chronydArgs(config, user string) []string {
	return []string{"chronyd", "-n", "-f", config, "-u", user, "-P", "1"}
}

func chronydUser() string {
	passwd, err := smallfile.Read("/etc/passwd")
	if err != nil {
		return clock.User(strings.NewReader(""))
	}
	return clock.User(strings.NewReader(string(passwd)))
}
