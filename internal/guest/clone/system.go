package clone

import (
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/guest/clock"
	"wrenn.dev/wrenn/internal/guest/identity"
)

// The guest's own parts.
const (
	logFile    = "/dev/kmsg"
	poolFile   = "/dev/urandom"
	hostRandom = "/dev/hwrng"
	kernelID   = "/proc/sys/kernel/random/boot_id"
	coverID    = "/run/wrenn/boot_id"
)

// System is the machine that the caller runs in, whose log is followed from now on until the process ends. It takes root. warn is
// told what a guest can do without.
func System(warn func(error)) (*Machine, error) {
	log, err := openLog(logFile)
	if err != nil {
		return nil, fmt.Errorf("follow the kernel's log: %w", err)
	}
	return &Machine{
		Log:     log,
		Entropy: random{pool: poolFile, host: hostRandom}.stir,
		Clock:   func() (time.Duration, error) { return clock.Step(clock.Device) },
		Name:    func(hostname string) error { return identity.Rename(hostname, warn) },
		BootID:  bootID{kernel: kernelID, cover: coverID}.renew,
	}, nil
}
