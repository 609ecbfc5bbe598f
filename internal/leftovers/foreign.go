package leftovers

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Baseline is the state of what is not ours on the host: links, addresses, routes, firewall rules, forwarding, named network
// namespaces, loop and device-mapper devices, mounts.
type Baseline map[string]bool

// Changes says in which way the host differs now, a line for each thing that is gone or new.
func (b Baseline) Changes(now Baseline) []string {
	var list []string
	for _, thing := range slices.Sorted(maps.Keys(b)) {
		if !now[thing] {
			list = append(list, "gone: "+thing)
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(now)) {
		if !b[thing] {
			list = append(list, "new: "+thing)
		}
	}
	return list
}

// Foreign takes the state of what is not ours.
func Foreign(ctx context.Context, stateDir string) (Baseline, error) {
	h, err := realHost(stateDir)
	if err != nil {
		return nil, err
	}
	b := Baseline{}
	for _, part := range []func(Baseline) error{foreignLinks, foreignRules, h.foreignForwarding, h.foreignNames, h.foreignDevices, h.foreignMounts} {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := part(b); err != nil {
			return nil, fmt.Errorf("look at what is not ours: %w", err)
		}
	}
	return b, nil
}

func (b Baseline) add(format string, args ...any) { b[fmt.Sprintf(format, args...)] = true }

func foreignLinks(b Baseline) error {
	h, err := handle()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		if strings.HasPrefix(a.Name, prefix) {
			continue
		}
		names[a.Index] = a.Name
		b.add("link %s: number %d, %s, up %v, mtu %d, %s", a.Name, a.Index, l.Type(), a.Flags&1 != 0, a.MTU, a.HardwareAddr)
		addrs, err := h.AddrList(l, unix.AF_UNSPEC)
		if err != nil && !gone(err) {
			return err
		}
		for _, addr := range addrs {
			if addr.IP.IsLinkLocalUnicast() && addr.IP.To4() == nil {
				continue // the kernel's own, and it takes its time with them
			}
			b.add("address %s on %s", addr.IPNet, a.Name)
		}
	}
	routes, err := h.RouteListFiltered(unix.AF_UNSPEC, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL || r.Dst != nil && r.Dst.IP.To4() == nil && (r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast()) {
			continue // they follow from the addresses
		}
		if name, foreign := names[r.LinkIndex]; foreign || r.LinkIndex == 0 {
			b.add("route %s by %s on %s, table %d, type %d", r.Dst, r.Gw, name, r.Table, r.Type)
		}
	}
	return nil
}

// foreignRules takes other tables, their chains, and their rules without what counts.
func foreignRules(b Baseline) error {
	c, err := rules()
	if err != nil {
		return err
	}
	chains, err := c.ListChains()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if chain.Table.Name == tableName {
			continue
		}
		list, err := c.GetRules(chain.Table, chain)
		if err != nil && !gone(err) {
			return err
		}
		b.add("nftables chain %s %s %s: %d rules, %s", familyName(chain.Table.Family), chain.Table.Name, chain.Name, len(list), digest(list))
	}
	tables, err := tableNames()
	for _, t := range tables {
		if _, name, _ := strings.Cut(t, " "); name != tableName {
			b.add("nftables table %s", t)
		}
	}
	return err
}

func digest(list []*nftables.Rule) string {
	h := fnv.New64a()
	for _, r := range list {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Counter, *expr.Quota, *expr.Limit:
			default:
				fmt.Fprintf(h, "%T %+v;", e, e)
			}
		}
		fmt.Fprintf(h, "%d\n", r.Handle)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// foreignForwarding takes which interfaces forward, of all that are not ours.
func (h *host) foreignForwarding(b Baseline) error {
	for _, family := range []string{"ipv4", "ipv6"} {
		dir := filepath.Join(h.proc, "sys/net", family, "conf")
		names, err := readDir(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if strings.HasPrefix(name, prefix) {
				continue
			}
			value, err := readFile(filepath.Join(dir, name, "forwarding"))
			if err != nil && !gone(err) {
				return err
			}
			b.add("%s forwarding of %s: %s", family, name, strings.TrimSpace(string(value)))
		}
	}
	return nil
}

func (h *host) foreignNames(b Baseline) error {
	names, err := readDir(h.netns)
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			b.add("network namespace %s", name)
		}
	}
	return err
}

func (h *host) foreignDevices(b Baseline) error {
	ours := map[string]bool{}
	for _, list := range []func() ([]Object, error){h.loops, h.dmDevices} {
		objects, err := list()
		if err != nil {
			return err
		}
		for _, o := range objects {
			name, _, _ := strings.Cut(o.Name, " ")
			ours[name] = true
		}
	}
	devices, err := h.block("loop")
	if err != nil {
		return err
	}
	for _, dev := range devices {
		if file := h.attr(dev, "loop/backing_file"); file != "" && !ours["/dev/"+dev] {
			b.add("loop device %s on %s", dev, file)
		}
	}
	devices, err = h.block("dm-")
	for _, dev := range devices {
		if name := h.attr(dev, "dm/name"); !ours[name] && !ours[dev] {
			b.add("device-mapper device %s", name)
		}
	}
	return err
}

// foreignMounts takes the mounts, without the folder of namespaces' names: whoever makes the first one mounts it, and it
// stays.
func (h *host) foreignMounts(b Baseline) error {
	ours, err := h.mounts()
	if err != nil {
		return err
	}
	mine := map[string]bool{h.netns: true}
	for _, o := range ours {
		mine[o.Name] = true
	}
	return lines(filepath.Join(h.proc, "self/mountinfo"), func(line string) {
		if f := strings.Fields(line); len(f) >= 5 && !mine[unescape(f[4])] {
			b.add("mount %s", unescape(f[4]))
		}
	})
}
