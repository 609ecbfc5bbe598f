package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostcheck"
	"wrenn.dev/wrenn/internal/network/linux"
	"wrenn.dev/wrenn/internal/sandbox"
)

// hostFlags are what every command that works on this machine takes.
type hostFlags struct {
	stateDir, images    string
	firecracker, jailer string
	uidBase             int
}

func (h *hostFlags) register(root *cobra.Command) {
	fl := root.PersistentFlags()
	fl.StringVar(&h.stateDir, "state-dir", env("WRENN_STATE_DIR", "/var/lib/wrenn"), "folder of all state ($WRENN_STATE_DIR)")
	fl.StringVar(&h.images, "images", env("WRENN_IMAGES", ""), "folder of the templates (default: images in the state folder; $WRENN_IMAGES)")
	fl.StringVar(&h.firecracker, "firecracker", env("WRENN_FIRECRACKER", "firecracker"), "the firecracker binary, or its name on the PATH ($WRENN_FIRECRACKER)")
	fl.StringVar(&h.jailer, "jailer", env("WRENN_JAILER", "jailer"), "the jailer binary, or its name on the PATH ($WRENN_JAILER)")
	fl.IntVar(&h.uidBase, "uid-base", sandbox.DefaultUIDBase, "first of the uids that VMMs run under, one each")
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// parts are what works on this host's sandboxes.
func (h *hostFlags) parts() (*assembly.Parts, error) {
	if os.Geteuid() != 0 {
		return nil, errs.Field("user", fmt.Sprintf("sandboxes need root, and this is uid %d", os.Geteuid()), "run it with sudo")
	}
	return assembly.New(assembly.Config{StateDir: h.stateDir, Images: h.images, Firecracker: h.firecracker, Jailer: h.jailer, UIDBase: h.uidBase})
}

// ready are the parts of a host that can run machines, as far as that takes no time to see.
func (h *hostFlags) ready() (*assembly.Parts, error) {
	if err := h.canRun(); err != nil {
		return nil, err
	}
	return h.parts()
}

// canRun refuses what keeps this host from running a machine and takes no time to see. 'wrenn host check' sees the rest.
func (h *hostFlags) canRun() error {
	for _, b := range []struct{ flag, name string }{{"--firecracker", h.firecracker}, {"--jailer", h.jailer}} {
		if _, err := exec.LookPath(b.name); err != nil {
			return errs.Field(b.flag, b.name+" is not there or can't be run", "install the official release, or give its path")
		}
	}
	if err := hostcheck.CheckUIDRange(h.uidBase, 2*linux.DefaultSlots); err != nil {
		return err
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return nil // parts says it better
	case err != nil:
		return errs.Field("kvm", err.Error(), "'wrenn host check' says what this machine needs")
	}
	return kvm.Close()
}

func (h *hostFlags) checkOptions() hostcheck.Options {
	return hostcheck.Options{StateDir: h.stateDir, Firecracker: h.firecracker, Jailer: h.jailer, UIDBase: h.uidBase, Slots: 2 * linux.DefaultSlots}
}
