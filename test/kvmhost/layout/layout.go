// Package layout is what the tool outside and the agent inside the emulated host agree on: the names of disks and ports, and
// where things are inside. It is a leaf package.
package layout

// The disks by their serial numbers. The root disk is the first of all disks.
const (
	RootDisk    = "root"
	BinDisk     = "bin"
	TestsDisk   = "tests"
	ImagesDisk  = "images"
	ScratchDisk = "scratch"
)

// The virtio-serial ports by their names.
const (
	HeartbeatPort = "kvmhost.heartbeat"
	ControlPort   = "kvmhost.control"
)

// SystemdInit is the kernel parameter that has systemd bring the host up, and not the agent alone.
const SystemdInit = "kvmhost.init=systemd"

// Places inside.
const (
	Bin    = "/opt/wrenn/bin"   // built binaries
	Tests  = "/opt/wrenn/tests" // test binaries with their data
	Images = "/images"          // the store of templates
	State  = "/var/lib/wrenn"   // the scratch disk
	Out    = "/out"             // what a command leaves here can be fetched
)

// Path is the PATH of every command.
const Path = Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Mount is where and how a disk is mounted.
type Mount struct {
	At       string
	Kind     string // file system
	ReadOnly bool
}

// Mounts are the mounts of the disks that may be attached, by serial number.
var Mounts = map[string]Mount{
	BinDisk:     {At: Bin, Kind: "ext4", ReadOnly: true},
	TestsDisk:   {At: Tests, Kind: "ext4", ReadOnly: true},
	ImagesDisk:  {At: Images, Kind: "ext4", ReadOnly: true},
	ScratchDisk: {At: State, Kind: "xfs"},
}

// Modules are the kernel modules that a host of sandboxes needs, and the drivers of QEMU's devices.
var Modules = []string{
	"virtio_net", "virtio_rng", "xfs", "kvm_amd", "vhost_vsock", "dm_snapshot", "dm_zero", "loop", "tun", "veth", "bridge",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_fib_inet", "nft_reject_inet", "nft_limit",
}
