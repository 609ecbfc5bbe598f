// Package clock keeps the guest's clock by the host's, which a KVM guest reads as a PTP hardware clock.
//
// Nothing of it is needed for a machine to run: without such a clock the guest keeps the time it booted with.
package clock

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the host's clock as the module ptp_kvm gives it to the guest.
const Device = "/dev/ptp0"

// Tolerance is how far off the clock may be before Step sets it. Below it chronyd corrects the clock's rate instead.
const Tolerance = 50 * time.Millisecond

// tries is how often the two clocks are compared; the try that took least time is the most exact.
const tries = 5

// Step sets the system's clock to the host's at once if it is off by more than Tolerance, and returns by how much it was.
func Step(device string) (time.Duration, error) {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("host's clock %s: %w", device, err)
	}
	defer unix.Close(fd)
	host := int32(^fd)<<3 | 3 // the clock id of a clock device's descriptor
	offset, err := compare(func() (time.Time, error) { return read(host) }, func() (time.Time, error) { return read(unix.CLOCK_REALTIME) })
	if err != nil {
		return 0, fmt.Errorf("host's clock %s: %w", device, err)
	}
	if offset.Abs() <= Tolerance {
		return offset, nil
	}
	now := unix.NsecToTimeval(time.Now().Add(offset).UnixNano())
	if err := unix.Settimeofday(&now); err != nil {
		return offset, fmt.Errorf("set the clock: %w", err)
	}
	return offset, nil
}

func read(id int32) (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return time.Time{}, err
	}
	return time.Unix(ts.Unix()), nil
}

// compare returns what must be added to own to make it host.
func compare(host, own func() (time.Time, error)) (offset time.Duration, err error) {
	best := time.Duration(-1)
	for range tries {
		before, err := own()
		if err != nil {
			return 0, err
		}
		there, err := host()
		if err != nil {
			return 0, err
		}
		after, err := own()
		if err != nil {
			return 0, err
		}
		if took := after.Sub(before); best < 0 || took < best {
			best, offset = took, there.Sub(before)-took/2
		}
	}
	return offset, nil
}

// Config is what chronyd is told: follow the host's clock, step whenever it is off by more than a second (a machine that was
// frozen), and serve nobody.
func Config(device string) string {
	return "refclock PHC " + device + " poll 3 dpoll -2 offset 0\n" +
		"makestep 1.0 -1\n" +
		"cmdport 0\n" +
		"port 0\n"
}

// User picks the user that chronyd runs as from the text of /etc/passwd: its own where there is one, else root.
func User(passwd io.Reader) string {
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		switch name, _, _ := strings.Cut(lines.Text(), ":"); name {
		case "_chrony", "chrony":
			return name
		}
	}
	return "root"
}
