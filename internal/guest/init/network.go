package guestinit

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"wrenn.dev/wrenn/internal/guest/mmds"
)

// The guest's end of the network. It is the same in every machine, so that a frozen one fits everywhere.
const (
	device  = "eth0"
	address = "169.254.0.21/30"
	gateway = "169.254.0.22"
)

// bringUp configures the loopback and the network interface. It is false without an error when there is no interface. IPv6
// is left to the kernel, which gives the interface its link-local address.
func bringUp() (bool, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("network interface lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return false, fmt.Errorf("network interface lo: %w", err)
	}
	eth, err := netlink.LinkByName(device)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("network interface %s: %w", device, err)
	}
	own, err := netlink.ParseAddr(address)
	if err != nil {
		return false, err
	}
	if err := netlink.AddrReplace(eth, own); err != nil {
		return false, fmt.Errorf("address of %s: %w", device, err)
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return false, fmt.Errorf("network interface %s: %w", device, err)
	}
	for _, r := range routes(eth.Attrs().Index) {
		if err := netlink.RouteReplace(&r); err != nil {
			return false, fmt.Errorf("route to %v: %w", r.Dst, err)
		}
	}
	return true, nil
}

// routes are to the metadata service, which answers on the link itself, and to everything else through the host.
func routes(index int) []netlink.Route {
	metadata := &net.IPNet{IP: net.ParseIP(mmds.Address).To4(), Mask: net.CIDRMask(32, 32)}
	return []netlink.Route{
		{LinkIndex: index, Dst: metadata, Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gw: net.ParseIP(gateway).To4()},
	}
}
