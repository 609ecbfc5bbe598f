package vmm

import (
	"errors"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

func good() Config {
	return Config{
		ID: id.New(), VCPUs: 2, MemoryMiB: 256, Kernel: "/k", Initramfs: "/i", BootArgs: "quiet rdinit=/init",
		Drives: []Drive{{ID: "rootfs", Path: "/dev/x"}, {ID: "modules_1", Path: "/m", ReadOnly: true}},
		NIC:    &NIC{TAP: "tap0", MAC: "02:77:72:65:6e:01"}, Metadata: map[string]any{"a": "b"},
		Jail: Jail{UID: 1, GID: 1, NetNS: "/run/netns/x", Limits: Limits{MemoryMaxBytes: 1 << 30, PIDsMax: 10}},
	}
}

func TestCheckTakes(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all of it":   func(*Config) {},
		"bare":        func(c *Config) { c.NIC, c.Metadata, c.Drives, c.BootArgs = nil, nil, nil, "" },
		"most":        func(c *Config) { c.VCPUs, c.BootArgs = MaxVCPUs, strings.Repeat("x", maxBootArgs) },
		"least":       func(c *Config) { c.VCPUs, c.MemoryMiB = 1, MinMemoryMiB },
		"no metadata": func(c *Config) { c.Metadata = nil },
		"a CPU limit": func(c *Config) { c.Jail.Limits.CPUQuota = 0.5 },
	} {
		cfg := good()
		change(&cfg)
		if err := cfg.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckNamesFieldAndFix(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"vcpus":        func(c *Config) { c.VCPUs = MaxVCPUs + 1 },
		"memory":       func(c *Config) { c.MemoryMiB = -1 },
		"boot args":    func(c *Config) { c.BootArgs = "a\x00b" },
		"kernel":       func(c *Config) { c.Kernel = "k" },
		"initramfs":    func(c *Config) { c.Initramfs = "./i" },
		"netns":        func(c *Config) { c.Jail.NetNS = "x" },
		"drives":       func(c *Config) { c.Drives = make([]Drive, MaxDrives+1) },
		"drive":        func(c *Config) { c.Drives[1].ID = "a-b" },
		"tap":          func(c *Config) { c.NIC.TAP = "a/b" },
		"mac":          func(c *Config) { c.NIC.MAC = "02:00:5e:10:00:00:00:01" },
		"metadata":     func(c *Config) { c.Metadata["x"] = strings.Repeat("x", maxMetadata) },
		"uid":          func(c *Config) { c.Jail.GID = -1 },
		"memory limit": func(c *Config) { c.Jail.Limits.MemoryMaxBytes = -1 },
		"pids limit":   func(c *Config) { c.Jail.Limits.PIDsMax = -1 },
		"cpu limit":    func(c *Config) { c.Jail.Limits.CPUQuota = -1 },
	} {
		cfg := good()
		change(&cfg)
		var e *errs.FieldError
		if err := cfg.Check(); !errors.As(err, &e) || e.Field != field || e.Problem == "" || e.Fix == "" || len(err.Error()) > 300 {
			t.Errorf("%s: %v, want an error of that field with a fix", field, err)
		}
	}
	cfg := good()
	cfg.Drives[1].ID = cfg.Drives[0].ID
	if err := cfg.Check(); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("the same drive twice: %v", err)
	}
	cfg = good()
	cfg.Metadata["f"] = func() {}
	if err := cfg.Check(); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("metadata that is no JSON: %v", err)
	}
}
