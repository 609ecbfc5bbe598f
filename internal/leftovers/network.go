package leftovers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds one exchange with the kernel.
const patience = time.Minute

// namespaces lists the network namespaces that have a name of ours, and what stands in their place when it is none.
func (h *host) namespaces() ([]Object, error) {
	names, err := readDir(h.netns)
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, name := range names {
		if slot, ours := strings.CutPrefix(name, prefix); ours {
			list = append(list, Object{"netns", filepath.Join(h.netns, name), h.slotOwner(slot)})
		}
	}
	return list, nil
}

// slotOwner is the sandbox that has a slot, or readyOwner.
func (h *host) slotOwner(slot string) string {
	if strings.ContainsRune(slot, '/') {
		return ""
	}
	target, err := os.Readlink(filepath.Join(h.state, slotDir, slot))
	if err != nil {
		return ""
	}
	if target == readyOwner {
		return readyOwner
	}
	owner, _ := parseID(target)
	return owner
}

// ourLinks lists the host's links, TAPs among them, with a name of ours.
func (h *host) ourLinks() ([]Object, error) {
	names, err := h.links()
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			list = append(list, Object{"link", name, h.slotOwner(strings.TrimPrefix(name, linkPrefix))})
		}
	}
	return list, nil
}

// ourTables lists the host's nftables tables with our name.
func (h *host) ourTables() ([]Object, error) {
	tables, err := h.tables()
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, t := range tables {
		if _, name, _ := strings.Cut(t, " "); name == tableName {
			list = append(list, Object{Kind: "nft table", Name: t})
		}
	}
	return list, nil
}

func linkNames() ([]string, error) {
	h, err := handle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	return names, nil
}

func handle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := h.SetSocketTimeout(patience); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func tableNames() ([]string, error) {
	c, err := rules()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTables()
	if gone(err) { // a kernel without nftables has no table
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = familyName(t.Family) + " " + t.Name
	}
	return names, nil
}

func rules() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *mdlayher.Conn) error { return c.SetDeadline(time.Now().Add(patience)) }))
}

func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge",
	}
	if name, ok := names[f]; ok {
		return name
	}
	return fmt.Sprintf("family-%d", f)
}
