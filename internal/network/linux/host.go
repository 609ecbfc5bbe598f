package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/network/linux/nft"
)

// netlinkPatience bounds one exchange with the kernel.
const netlinkPatience = time.Minute

// newHandle is a netlink socket of the calling thread's namespace.
func newHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := h.SetSocketTimeout(netlinkPatience); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

const sysctlDir = "/proc/sys/net"

// setSysctl sets a variable of the calling thread's network namespace.
func setSysctl(name, value string) error {
	f, err := os.OpenFile(filepath.Join(sysctlDir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// setSysctlIfAny does nothing where the kernel does not have the variable, as IPv6's where it is off.
func setSysctlIfAny(name, value string) error {
	if err := setSysctl(name, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func getSysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlDir, name))
	return strings.TrimSpace(string(b)), err
}

func forwardingOf(link string) string { return filepath.Join("ipv4/conf", link, "forwarding") }

// prepareHost makes the host's table and lets the uplinks forward. The caller holds the lock.
func prepareHost(ctx context.Context) error {
	t := hostTable()
	exists, current, err := nft.Find(t)
	if err != nil {
		return err
	}
	if !current {
		kept := nft.Elements{}
		if exists { // another version's: its slots stay open
			for _, set := range []string{setOpen, setRouted} {
				if kept[set], err = nft.Members(t, set); err != nil {
					return err
				}
			}
		}
		if err := nft.Put(t, kept); err != nil {
			return err
		}
	}
	if err := step(ctx, pointTable); err != nil {
		return err
	}
	return forward()
}

// forward lets the uplinks forward, unless the whole host does. What it changes is in the table before it is changed.
func forward() error {
	if all, err := getSysctl("ipv4/ip_forward"); err != nil || all != "0" {
		return err
	}
	names, err := uplinks()
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := getSysctl(forwardingOf(name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && value != "0" {
			continue
		}
		if err != nil {
			return err
		}
		if err := nft.Include(hostTable(), setRouted, nft.Element{name}); err != nil {
			return err
		}
		if err := setSysctl(forwardingOf(name), "1"); err != nil {
			return fmt.Errorf("let %s forward: %w", name, err)
		}
	}
	return nil
}

// uplinks is the interfaces that answers from the outside can come in on: those with a route by a gateway or for everything.
func uplinks() ([]string, error) {
	h, err := newHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	routes, err := h.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	used := map[int]bool{}
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		everything := r.Dst == nil || r.Dst.IP.IsUnspecified()
		if r.Gw != nil || r.Via != nil || everything {
			used[r.LinkIndex] = true
		}
		for _, hop := range r.MultiPath {
			used[hop.LinkIndex] = true
		}
	}
	var names []string
	for _, l := range links {
		if a := l.Attrs(); used[a.Index] && !strings.HasPrefix(a.Name, linkPrefix) {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// clearHost removes what serves all slots if no slot is left, whosever. The caller holds the lock.
func clearHost(ctx context.Context) error {
	left, err := namedSlots()
	if err != nil || len(left) > 0 {
		return err
	}
	if err := removeStrays(); err != nil {
		return err
	}
	t := hostTable()
	exists, _, err := nft.Find(t)
	if err != nil {
		return err
	}
	if exists {
		if err := stopForwarding(t); err != nil {
			return err
		}
		if err := nft.Remove(t); err != nil {
			return err
		}
	}
	return step(ctx, pointTableGone)
}

// stopForwarding turns off what forward turned on, unless somebody made the whole host forward meanwhile.
func stopForwarding(t nft.Table) error {
	routed, err := nft.Members(t, setRouted)
	if err != nil {
		return err
	}
	all, err := getSysctl("ipv4/ip_forward")
	if err != nil || all != "0" {
		return err
	}
	for _, e := range routed {
		if err := setSysctlIfAny(forwardingOf(e[0]), "0"); err != nil {
			return fmt.Errorf("stop %s from forwarding: %w", e[0], err)
		}
	}
	return nil
}

// removeStrays removes our ends of pairs whose namespace somebody else took the name from.
func removeStrays() error {
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if _, ours := slotNumber(l.Attrs().Name, linkPrefix); !ours || l.Type() != "veth" {
			continue
		}
		if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// hostAddrs is the IPv4 addresses of the host.
func hostAddrs() ([]netip.Addr, error) {
	h, err := newHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := h.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, ip.Unmap())
		}
	}
	return addrs, nil
}
