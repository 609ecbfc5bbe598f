// Package assembly puts the real drivers together on this host: the one place that knows which implementation stands behind
// which interface.
package assembly

import (
	"os/exec"
	"path/filepath"
	"time"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker"
)

// Config says where things are on this host.
type Config struct {
	// StateDir is the folder of all state.
	StateDir string
	// Images is the folder of the templates; empty means "images" in the state folder.
	Images string
	// Firecracker and Jailer are the paths of the two binaries, or their names on the PATH. One that is not found is told of when
	// a machine is to be started: what only lists and removes needs none.
	Firecracker, Jailer string
	// UIDBase is the first of the uids that machines run under; 0 means sandbox.DefaultUIDBase.
	UIDBase int
}

// Parts are what a host runs sandboxes with.
type Parts struct {
	Config
	VMM       vmm.Driver
	Disk      disk.Driver
	Network   network.Driver
	Templates *template.Store
	Manager   *sandbox.Manager
}

// startTimeout bounds one start. Real hardware needs about a second; an emulated host under load a minute.
const startTimeout = 5 * time.Minute

// neighbours is where the agents of one kernel tell each other of their state folders.
const neighbours = "/run/wrenn/states"

// New makes the drivers and the manager. It makes the state folder's own folders and nothing else; whether the host can run
// machines shows when one is started.
func New(cfg Config) (*Parts, error) {
	state, err := filepath.Abs(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	cfg.StateDir = state
	if cfg.Images == "" {
		cfg.Images = filepath.Join(state, "images")
	}
	cfg.Firecracker, cfg.Jailer = find(cfg.Firecracker), find(cfg.Jailer)
	if cfg.UIDBase == 0 {
		cfg.UIDBase = sandbox.DefaultUIDBase
	}
	net, err := linux.New(linux.Config{StateDir: state})
	if err != nil {
		return nil, err
	}
	pagers, err := newPagers(state)
	if err != nil {
		return nil, err
	}
	disks := devmapper.New(devmapper.Config{StateDir: state})
	p := &Parts{
		Config:    cfg,
		VMM:       firecracker.New(firecracker.Options{StateDir: state, Firecracker: cfg.Firecracker, Jailer: cfg.Jailer}),
		Disk:      disks,
		Network:   net,
		Templates: template.Open(cfg.Images),
	}
	p.Manager, err = sandbox.NewManager(sandbox.Config{
		StateDir: state, VMM: p.VMM, Disk: disks, Network: p.Network, Pagers: pagers, Guest: envd{}, Templates: p.Templates,
		Host: fingerprint(p.VMM), UIDBase: cfg.UIDBase, Slots: linux.DefaultSlots, StartTimeout: startTimeout,
		Neighbours: neighbours,
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// find is the absolute path of a binary, or what was given when there is none.
func find(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return name
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return path
}
