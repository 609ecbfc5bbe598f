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

// MachineConfig is the body of PUT /machine-config.
type MachineConfig struct {
	VCPUCount  int `json:"vcpu_count"`
	MemSizeMiB int `json:"mem_size_mib"`
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
