// Package guestinit is wrenn-init's second stage, the guest's first process in its root file system: it mounts what a Linux
// system has, brings up the network, takes the machine's name from the metadata service, and becomes tini, which runs envd.
//
// The image may be anybody's: only the injected files in /usr/lib/wrenn are relied on. What a guest can do without (chronyd,
// name servers in a read-only image) is warned of in the kernel's log; anything else that fails ends the machine, so that the
// host sees it at once.
//
// The first stage is in package ramdisk.
package guestinit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/clock"
	"wrenn.dev/wrenn/internal/guest/identity"
	"wrenn.dev/wrenn/internal/guest/init/cmdline"
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

// The injected files.
const (
	tini = "/usr/lib/wrenn/tini"
	envd = "/usr/lib/wrenn/envd"
)

// metadataPatience bounds the wait for the metadata service. It answers in a millisecond; many machines that start at once
// under emulation may need much more.
const metadataPatience = 2 * time.Minute

// Run does all of the second stage. It returns only when it fails.
func Run(ctx context.Context) error {
	if err := mountAll(); err != nil {
		return err
	}
	args, err := readArgs()
	if err != nil {
		return err
	}
	document := fetch(ctx, args)
	if !args.ReadOnly {
		if err := grow(args.Root); err != nil {
			return err
		}
	}
	tune()
	setClock()
	doc := <-document
	if doc.err != nil {
		return doc.err
	}
	if err := identity.Apply(doc.Document, func(err error) { kmsg.Warn("%v", err) }); err != nil {
		return err
	}
	background()
	return fmt.Errorf("%s: %w", tini, unix.Exec(tini, []string{"tini", "--", envd}, environment()))
}

func readArgs() (cmdline.Args, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return cmdline.Args{}, err
	}
	return cmdline.Parse(string(line))
}

type fetched struct {
	mmds.Document
	err error
}

// fetch brings up the network and asks for the metadata while the caller does other things. Without a network interface, or
// when the command line says that there is no service, the document is empty.
func fetch(ctx context.Context, args cmdline.Args) <-chan fetched {
	result := make(chan fetched, 1)
	go func() {
		var f fetched
		up, err := bringUp()
		switch {
		case err != nil:
			f.err = err
		case !up:
			kmsg.Warn("no network: there is no %s", device)
		case args.Metadata:
			ctx, cancel := context.WithTimeout(ctx, metadataPatience)
			defer cancel()
			f.Document, f.err = (&mmds.Client{}).Fetch(ctx)
		}
		result <- f
	}()
	return result
}

// setClock steps the clock before anybody's program can see it jump. A machine without the host's clock keeps its own.
func setClock() {
	offset, err := clock.Step(clock.Device)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		kmsg.Warn("%v", err)
	case offset.Abs() > clock.Tolerance:
		kmsg.Warn("the clock was off by %v", offset)
	}
}

// background starts what nobody has to wait for in a process of its own, at the lowest priority: it must not take the CPU from
// envd's start.
func background() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{BackgroundName}
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		kmsg.Warn("background work: %v", err)
		return
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, lowestPriority); err != nil && !errors.Is(err, unix.ESRCH) {
		kmsg.Warn("priority of the background work: %v", err)
	}
}

// lowestPriority is the nice value of background work.
const lowestPriority = 19

// environment is what envd starts with.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LANG=C.UTF-8",
	}
}
