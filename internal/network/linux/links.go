package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/network"
)

// makeTAP makes the TAP device in the calling thread's namespace, in the mode that Firecracker opens it in, for the user
// and group of that number to open. It stays when the file is closed.
func makeTAP(uid int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(network.TAPName)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make %s: %w", network.TAPName, err)
	}
	for _, set := range []struct {
		what  string
		req   uint
		value int
	}{{"owner", unix.TUNSETOWNER, uid}, {"group", unix.TUNSETGROUP, uid}, {"persistence", unix.TUNSETPERSIST, 1}} {
		if err := unix.IoctlSetInt(fd, set.req, set.value); err != nil {
			return fmt.Errorf("set the %s of %s: %w", set.what, network.TAPName, err)
		}
	}
	return nil
}

// makePair makes the veth pair: one end in the calling thread's namespace, the other in the host's.
func makePair(h *netlink.Handle, slot int, host *os.File) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = insideLink
	attrs.HardwareAddr = insideMAC(slot)
	pair := netlink.NewVeth(attrs)
	pair.PeerName = linkName(slot)
	pair.PeerHardwareAddr = hostMAC(slot)
	pair.PeerNamespace = netlink.NsFd(host.Fd())
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the pair %s: %w", linkName(slot), err)
	}
	return nil
}

// end is one end of a link and what is at the other.
type end struct {
	name    string
	addr    netip.Prefix
	peer    netip.Addr
	peerMAC net.HardwareAddr
}

// raise gives the link its address and its only neighbour, and turns it on.
func (e end) raise(h *netlink.Handle) (netlink.Link, error) {
	link, err := h.LinkByName(e.name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", e.name, err)
	}
	index := link.Attrs().Index
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: e.addr.Addr().AsSlice(), Mask: net.CIDRMask(e.addr.Bits(), e.addr.Addr().BitLen())}}
	if err := h.AddrAdd(link, addr); err != nil {
		return nil, fmt.Errorf("give %s its address: %w", e.name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("turn on %s: %w", e.name, err)
	}
	neigh := &netlink.Neigh{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST,
		IP: e.peer.AsSlice(), HardwareAddr: e.peerMAC}
	if err := h.NeighSet(neigh); err != nil {
		return nil, fmt.Errorf("give %s its neighbour: %w", e.name, err)
	}
	return link, nil
}

// raiseTAP turns on the TAP. Its hardware address is the same in every slot, because a guest that was frozen remembers it.
func raiseTAP(h *netlink.Handle) error {
	mac, err := net.ParseMAC(network.GatewayMAC)
	if err != nil {
		return err
	}
	link, err := h.LinkByName(network.TAPName)
	if err != nil {
		return fmt.Errorf("find %s: %w", network.TAPName, err)
	}
	if err := h.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("give %s its hardware address: %w", network.TAPName, err)
	}
	_, err = end{network.TAPName, netip.PrefixFrom(network.Gateway, network.PrefixBits), network.GuestIP, guestMAC()}.raise(h)
	return err
}

// raiseInside turns on the namespace's end of the pair, the way out.
func raiseInside(h *netlink.Handle, slot int) error {
	link, err := end{insideLink, netip.PrefixFrom(insideAddr(slot), 31), hostAddr(slot), hostMAC(slot)}.raise(h)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: hostAddr(slot).AsSlice()}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("give the namespace its route: %w", err)
	}
	return nil
}

// raiseHost turns on the host's end of the pair.
func raiseHost(slot int) error {
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	name := linkName(slot)
	if err := setSysctlIfAny("ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
		return fmt.Errorf("keep IPv6 off %s: %w", name, err)
	}
	if err := setSysctl(forwardingOf(name), "1"); err != nil {
		return fmt.Errorf("let %s forward: %w", name, err)
	}
	_, err = end{name, netip.PrefixFrom(hostAddr(slot), 31), insideAddr(slot), insideMAC(slot)}.raise(h)
	return err
}

// removePair removes both ends of the pair. It is idempotent.
func removePair(slot int) error {
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(linkName(slot))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", linkName(slot), err)
	}
	return nil
}
