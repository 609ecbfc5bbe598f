package vmm

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/lazyregexp"
)

// The bounds of a Config. Each is the VMM's own or a little below it.
const (
	// MinMemoryMiB is the least memory that a guest boots with.
	MinMemoryMiB = 128
	// MaxVCPUs is the most virtual CPUs that a machine can have.
	MaxVCPUs = 32
	// MaxDrives is the most drives that a machine can have.
	MaxDrives = 8
	// maxBootArgs leaves room in the 2048 bytes of a command line for what the VMM appends.
	maxBootArgs = 1536
	// maxMetadata is the size of the metadata store.
	maxMetadata = 51200
)

var (
	driveID = lazyregexp.New(`^[A-Za-z0-9_]{1,64}$`)
	tapName = lazyregexp.New(`^[A-Za-z0-9_.-]{1,15}$`)
)

// Check refuses a configuration that can't be, with the field and the fix. Every driver does so before it makes anything.
// Whether the files are there is not asked.
func (cfg *Config) Check() error {
	if _, err := id.Parse(cfg.ID); err != nil {
		return err
	}
	switch {
	case cfg.VCPUs < 1 || cfg.VCPUs > MaxVCPUs:
		return errs.Field("vcpus", fmt.Sprintf("%d is out of range", cfg.VCPUs), fmt.Sprintf("give 1 to %d", MaxVCPUs))
	case cfg.MemoryMiB < MinMemoryMiB:
		return errs.Field("memory", fmt.Sprintf("%d MiB is too little", cfg.MemoryMiB), fmt.Sprintf("give at least %d", MinMemoryMiB))
	case len(cfg.BootArgs) > maxBootArgs || strings.ContainsFunc(cfg.BootArgs, unprintable):
		return errs.Field("boot args", "too long, or not printable ASCII", fmt.Sprintf("give at most %d characters", maxBootArgs))
	}
	if err := checkPaths(cfg); err != nil {
		return err
	}
	if err := checkDrives(cfg.Drives); err != nil {
		return err
	}
	if err := checkNetwork(cfg); err != nil {
		return err
	}
	return checkJail(cfg)
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// checkPaths looks at what the machine begins from.
func checkPaths(cfg *Config) error {
	paths := map[string]string{"netns": cfg.Jail.NetNS}
	switch from := cfg.From; {
	case from == nil:
		paths["kernel"], paths["initramfs"] = cfg.Kernel, cfg.Initramfs
	case cfg.Kernel != "" || cfg.Initramfs != "" || cfg.BootArgs != "":
		return errs.Field("kernel", "a frozen machine has one already", "leave kernel, initramfs and boot args out")
	case (from.Memory == "") == (from.Pager == ""):
		return errs.Field("memory", "a frozen machine's memory comes from a file or from a pager", "give one of the two")
	default:
		paths["state"], paths["memory"] = from.State, from.Memory+from.Pager
	}
	for field, path := range paths {
		if !filepath.IsAbs(path) {
			return errs.Field(field, fmt.Sprintf("%q is no absolute path", path), "give one")
		}
	}
	return nil
}

func checkDrives(drives []Drive) error {
	if len(drives) > MaxDrives {
		return errs.Field("drives", fmt.Sprintf("%d are too many", len(drives)), fmt.Sprintf("give at most %d", MaxDrives))
	}
	seen := map[string]bool{}
	for _, d := range drives {
		switch {
		case !driveID().MatchString(d.ID):
			return errs.Field("drive", fmt.Sprintf("the id %.70q is not allowed", d.ID), "use letters, digits and underscores")
		case seen[d.ID]:
			return errs.Field("drive", fmt.Sprintf("the id %q is there twice", d.ID), "give each drive its own")
		case !filepath.IsAbs(d.Path):
			return errs.Field("drive", fmt.Sprintf("%s: %q is no absolute path", d.ID, d.Path), "give one")
		}
		seen[d.ID] = true
	}
	return nil
}

func checkNetwork(cfg *Config) error {
	if cfg.NIC == nil {
		if cfg.Metadata != nil {
			return errs.Field("metadata", "there is no network interface to serve it on", "give one, or leave the metadata out")
		}
		return nil
	}
	if !tapName().MatchString(cfg.NIC.TAP) {
		return errs.Field("tap", fmt.Sprintf("%.20q is no name of a device", cfg.NIC.TAP), "give one of at most 15 characters")
	}
	if mac, err := net.ParseMAC(cfg.NIC.MAC); err != nil || len(mac) != 6 {
		return errs.Field("mac", fmt.Sprintf("%.20q is no hardware address", cfg.NIC.MAC), "give six bytes, such as 02:00:00:00:00:01")
	}
	data, err := json.Marshal(cfg.Metadata)
	if err != nil || len(data) > maxMetadata {
		return errs.Field("metadata", "it is too large or no JSON", fmt.Sprintf("give at most %d bytes", maxMetadata))
	}
	return nil
}

func checkJail(cfg *Config) error {
	l := cfg.Jail.Limits
	switch {
	case cfg.Jail.UID < 1 || cfg.Jail.GID < 1:
		return errs.Field("uid", "a machine can't run as root", "give it a uid and gid of its own")
	case l.MemoryMaxBytes < 1:
		return errs.Field("memory limit", fmt.Sprintf("%d bytes can't be", l.MemoryMaxBytes), "give a positive number")
	case l.PIDsMax < 1:
		return errs.Field("pids limit", fmt.Sprintf("%d can't be", l.PIDsMax), "give a positive number")
	case l.CPUQuota < 0:
		return errs.Field("cpu limit", fmt.Sprintf("%g can't be", l.CPUQuota), "give 0 for none, or a positive number")
	}
	return nil
}
