package linux

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/network"
)

// Usage implements network.Meter. The host's end of the pair counts what passes between the guest and the outside: what the host sends on its own
// account goes from inside the namespace to the TAP.
func (d *Driver) Usage(_ context.Context, sandbox string) (network.Usage, error) {
	slot, err := d.find(sandbox)
	if err != nil {
		return network.Usage{}, err
	}
	link, err := netlink.LinkByName(linkName(slot))
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return network.Usage{}, fmt.Errorf("network of %s: %w", sandbox, errs.ErrNotFound)
	}
	if err != nil {
		return network.Usage{}, fmt.Errorf("look at %s: %w", linkName(slot), err)
	}
	counts := link.Attrs().Statistics
	if counts == nil {
		return network.Usage{}, fmt.Errorf("the kernel counts nothing of %s: %w", linkName(slot), errs.ErrFailedPrecondition)
	}
	return network.Usage{ReceivedBytes: counts.TxBytes, SentBytes: counts.RxBytes}, nil
}
