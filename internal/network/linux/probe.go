package linux

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

// Probe makes a slot's links and every rule set in a network namespace without a name, which ends with it. It fails with what
// this kernel can't do.
func Probe() error {
	return onThread(func(*os.File) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		h, err := newHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		self, err := os.Open(threadNS)
		if err != nil {
			return err
		}
		defer self.Close()
		if err := makePair(h, 0, self); err != nil {
			return err
		}
		if err := makeTAP(0); err != nil {
			return err
		}
		slot := slotTable(network.Policy{Internet: true}, 0, nil, DefaultMaxConnections)
		slot.Name += "-slot" // the host's part is beside it here
		return errors.Join(put("the host's rules", hostTable()), put("the TAP's rules", tapTable()), put("the slot's rules", slot))
	})
}

func put(what string, t nft.Table) error {
	if err := nft.Put(t, nil); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
