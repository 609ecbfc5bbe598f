// Package kmsg writes wrenn-init's words into the kernel's log, which is the console when there is one, and ends the machine
// when nothing more can be done.
//
// It is a leaf package.
package kmsg

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxLine is what the kernel takes as one record, less its own prefix.
const maxLine = 900

// Warn logs what went wrong but stops nothing.
func Warn(format string, args ...any) { write(4, format, args...) }

// Fatal logs why the machine can't go on and restarts it, which under Firecracker ends it: the host sees at once that the
// guest is gone, where a guest that hangs would cost it a timeout.
func Fatal(err error) {
	write(2, "%v; the machine ends", err)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1) // not the machine's first process after all
}

func write(level int, format string, args ...any) {
	line := record(level, fmt.Sprintf(format, args...))
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		_, _ = os.Stderr.Write(line)
		return
	}
	defer f.Close()
	_, _ = f.Write(line)
}

// record is one record of the kernel's log: a line break in the text would end it early.
func record(level int, text string) []byte {
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	b := fmt.Appendf(nil, "<%d>wrenn-init: %s", level, text)
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return append(b, '\n')
}
