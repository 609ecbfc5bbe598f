package api

// The paths of the requests that a start makes, in their order.
const (
	PathMachineConfig = "/machine-config"
	PathBootSource    = "/boot-source"
	PathDrives        = "/drives/"             // and the drive's id
	PathNetwork       = "/network-interfaces/" // and the interface's id
	PathMMDSConfig    = "/mmds/config"
	PathMMDS          = "/mmds"
	PathEntropy       = "/entropy"
	PathSerial        = "/serial" // 1.14 and later
	PathActions       = "/actions"
)

// The paths of the requests that freeze a machine and begin from a frozen one.
const (
	PathVM             = "/vm"
	PathSnapshotCreate = "/snapshot/create"
	PathSnapshotLoad   = "/snapshot/load"
)

// MachineConfig is the body of PUT /machine-config.
type MachineConfig struct {
	VCPUCount       int  `json:"vcpu_count"`
	MemSizeMiB      int  `json:"mem_size_mib"`
	TrackDirtyPages bool `json:"track_dirty_pages,omitempty"`
}

// BootSource is the body of PUT /boot-source.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args"`
}

// Drive is the body of PUT /drives/{id}.
type Drive struct {
	DriveID      string `json:"drive_id"`
	PathOnHost   string `json:"path_on_host"`
	IsRootDevice bool   `json:"is_root_device"`
	IsReadOnly   bool   `json:"is_read_only"`
}

// NetworkInterface is the body of PUT /network-interfaces/{id}.
type NetworkInterface struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
	GuestMAC    string `json:"guest_mac,omitempty"`
}

// MMDSConfig is the body of PUT /mmds/config.
type MMDSConfig struct {
	Version           string   `json:"version"`
	NetworkInterfaces []string `json:"network_interfaces"`
}

// MMDSVersion2 is the metadata service that wants a token with each request.
const MMDSVersion2 = "V2"

// Entropy is the body of PUT /entropy.
type Entropy struct{}

// Serial is the body of PUT /serial.
type Serial struct {
	RateLimiter *TokenBucket `json:"rate_limiter,omitempty"` // 1.16 and later
}

// TokenBucket lets Size bytes through in each RefillTime.
type TokenBucket struct {
	Size       int64 `json:"size"`
	RefillTime int64 `json:"refill_time"` // milliseconds
}

// Action is the body of PUT /actions.
type Action struct {
	ActionType string `json:"action_type"`
}

// InstanceStart is the action that starts the virtual CPUs.
const InstanceStart = "InstanceStart"

// VM is the body of PATCH /vm.
type VM struct {
	State string `json:"state"`
}

// The states of VM.
const (
	Paused  = "Paused"
	Resumed = "Resumed"
)

// SnapshotCreate is the body of PUT /snapshot/create.
type SnapshotCreate struct {
	SnapshotType string `json:"snapshot_type"`
	SnapshotPath string `json:"snapshot_path"`
	MemFilePath  string `json:"mem_file_path"`
}

// The types of a snapshot.
const (
	Full = "Full"
	Diff = "Diff"
)

// SnapshotLoad is the body of PUT /snapshot/load.
type SnapshotLoad struct {
	SnapshotPath string     `json:"snapshot_path"`
	MemBackend   MemBackend `json:"mem_backend"`
	// TrackDirtyPages is for 1.13 and later, EnableDiffSnapshots the same for those before.
	TrackDirtyPages     bool `json:"track_dirty_pages,omitempty"`
	EnableDiffSnapshots bool `json:"enable_diff_snapshots,omitempty"`
	ResumeVM            bool `json:"resume_vm"`
}

// MemBackend is where a loaded machine's memory comes from.
type MemBackend struct {
	BackendType string `json:"backend_type"`
	BackendPath string `json:"backend_path"`
}

// The types of a MemBackend.
const (
	File = "File"
	Uffd = "Uffd"
)
