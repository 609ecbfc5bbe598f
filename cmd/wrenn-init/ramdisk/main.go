// Command ramdisk is /init of the guest's initramfs: the first stage of wrenn-init.
package main

import (
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
	"wrenn.dev/wrenn/internal/guest/init/ramdisk"
)

func main() { kmsg.Fatal(ramdisk.Run()) }
