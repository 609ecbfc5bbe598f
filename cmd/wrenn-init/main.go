// Command wrenn-init is the guest's first process in its root file system. Its first stage, which mounts that, is in the
// folder ramdisk: a program of its own, because every byte of the initramfs costs time at each boot.
package main

import (
	"context"
	"os"

	guestinit "wrenn.dev/wrenn/internal/guest/init"
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
)

func main() {
	if os.Args[0] == guestinit.BackgroundName {
		if err := guestinit.Background(); err != nil {
			kmsg.Warn("background work: %v", err)
		}
		return
	}
	kmsg.Fatal(guestinit.Run(context.Background()))
}
