package firecracker

import (
	"path/filepath"

	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/api"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

// nicID is the name of the one network interface in Firecracker's API.
const nicID = "eth0"

// Serial output beyond this rate is dropped where Firecracker can do so itself: what a person reads is far less.
const (
	serialBytes  = 64 << 10
	serialPeriod = 1000 // milliseconds
)

// request is one PUT.
type request struct {
	path string
	body any
}

// requests are what describes the machine to Firecracker, in the order that it wants: an interface before the metadata
// service that names it, the service before its content.
func requests(cfg *vmm.Config, can release.Features) []request {
	list := []request{
		{api.PathMachineConfig, api.MachineConfig{VCPUCount: cfg.VCPUs, MemSizeMiB: cfg.MemoryMiB, TrackDirtyPages: cfg.TrackDirty}},
		{api.PathBootSource, api.BootSource{KernelImagePath: "/" + kernelName, InitrdPath: "/" + initramfsName, BootArgs: cfg.BootArgs}},
	}
	for _, d := range cfg.Drives {
		list = append(list, request{api.PathDrives + d.ID,
			api.Drive{DriveID: d.ID, PathOnHost: "/" + drivesName + d.ID, IsReadOnly: d.ReadOnly}})
	}
	if cfg.NIC != nil {
		list = append(list, request{api.PathNetwork + nicID,
			api.NetworkInterface{IfaceID: nicID, HostDevName: cfg.NIC.TAP, GuestMAC: cfg.NIC.MAC}})
	}
	if cfg.Metadata != nil {
		list = append(list,
			request{api.PathMMDSConfig, api.MMDSConfig{Version: api.MMDSVersion2, NetworkInterfaces: []string{nicID}}},
			request{api.PathMMDS, cfg.Metadata})
	}
	list = append(list, request{api.PathEntropy, api.Entropy{}})
	if can.SerialRateLimit {
		limit := &api.TokenBucket{Size: serialBytes, RefillTime: serialPeriod}
		list = append(list, request{api.PathSerial, api.Serial{RateLimiter: limit}})
	}
	return list
}

// loadRequest makes a fresh process the frozen machine, paused.
func loadRequest(cfg *vmm.Config, can release.Features) api.SnapshotLoad {
	load := api.SnapshotLoad{SnapshotPath: "/" + stateName, MemBackend: api.MemBackend{BackendType: api.File, BackendPath: "/" + memoryName}}
	if cfg.From.Pager != "" {
		load.MemBackend = api.MemBackend{BackendType: api.Uffd, BackendPath: "/" + pagerName}
	}
	if can.TrackDirtyPages {
		load.TrackDirtyPages = cfg.TrackDirty
	} else {
		load.EnableDiffSnapshots = cfg.TrackDirty
	}
	return load
}

// execName is the name that the jailer gives the folder of a binary's jails.
func execName(exec string) string { return filepath.Base(exec) }
