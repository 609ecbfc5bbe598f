package linux

import (
	"net"
	"net/netip"
	"slices"

	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
	"wrenn.dev/wrenn/internal/publicaddr"
)

const (
	tableName = "wrenn"
	allLinks  = linkPrefix + "*"

	setDenied = "denied" // addresses that no guest reaches
	setOpen   = "open"   // slots that reach the internet: interface and source address
	setRouted = "routed" // interfaces that forward because of us
)

// denied is every IPv4 block that no guest reaches: guests have no IPv6.
var denied = publicaddr.NotPublic4

// hostTable is the host's part, the same for every number of slots.
func hostTable() nft.Table {
	in, out := nft.In(allLinks), nft.Out(allLinks)
	return nft.Table{
		Family: nft.Inet, Name: tableName,
		Sets: []nft.Set{
			{Name: setDenied, Key: []nft.KeyType{nft.IPv4Addr}, Prefixes: denied},
			{Name: setOpen, Key: []nft.KeyType{nft.InterfaceName, nft.IPv4Addr}},
			{Name: setRouted, Key: []nft.KeyType{nft.InterfaceName}},
		},
		Chains: []nft.Chain{
			// Before anybody translates an address, so that a packet for the host or a private network can't be turned into one
			// that looks harmless; and before a connection is tracked, so that a forged one takes no room.
			{Name: "prerouting", Type: "filter", Hook: "prerouting", Priority: nft.PriorityRaw, Rules: []nft.Rule{
				{Match: []nft.Match{in, nft.IPv6()}, Verdict: nft.Drop()},
				{Match: []nft.Match{in, nft.SourceNotAmong(setOpen)}, Verdict: nft.Drop()},
				{Match: []nft.Match{in, nft.LocalDest()}, Verdict: nft.Drop()},
				{Match: []nft.Match{in, nft.DestAmong(setDenied)}, Verdict: nft.Drop()},
			}},
			{Name: "input", Type: "filter", Hook: "input", Priority: nft.PriorityFilter, Rules: []nft.Rule{
				{Match: []nft.Match{in}, Verdict: nft.Drop()},
			}},
			{Name: "forward", Type: "filter", Hook: "forward", Priority: nft.PriorityFilter, Rules: []nft.Rule{
				{Match: []nft.Match{in, out}, Verdict: nft.Drop()},
				// Again, because a translation may have changed the destination since.
				{Match: []nft.Match{in, nft.DestAmong(setDenied)}, Verdict: nft.Drop()},
				{Match: []nft.Match{out, nft.NotEstablished()}, Verdict: nft.Drop()},
				// What the host did not route before it had sandboxes, it does not route now.
				{Match: []nft.Match{nft.InAmong(setRouted), nft.NotOut(allLinks), nft.NotEstablished(), nft.NotDNAT()}, Verdict: nft.Drop()},
			}},
			{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: nft.PrioritySource, Rules: []nft.Rule{
				{Match: []nft.Match{in, nft.NotOut(allLinks)}, Verdict: nft.Masquerade()},
			}},
		},
	}
}

// tapTable drops every frame from the TAP that the guest may not send, whatever it is for.
func tapTable() nft.Table {
	mac := guestMAC()
	return nft.Table{
		Family: nft.Netdev, Name: tableName,
		Chains: []nft.Chain{{
			Name: "guest", Type: "filter", Hook: "ingress", Device: network.TAPName, Priority: nft.PriorityFilter, Drop: true,
			Rules: []nft.Rule{
				{Match: []nft.Match{nft.EtherSource(mac), nft.FrameSource(network.GuestIP)}, Verdict: nft.Accept()},
				{Match: []nft.Match{nft.EtherSource(mac), nft.ARPRequest(mac, network.GuestIP, network.Gateway)}, Verdict: nft.Accept()},
				{Verdict: nft.Drop()},
			},
		}},
	}
}

func guestMAC() net.HardwareAddr {
	mac, _ := net.ParseMAC(network.GuestMAC) // a constant; a test reads it
	return mac
}

// slotTable is the namespace's part. The host's own addresses at this moment are denied here too, so that the guest does
// not reach them even if somebody flushes the host's rules.
func slotTable(policy network.Policy, slot int, hostAddrs []netip.Addr, maxConnections uint32) nft.Table {
	fromGuest, toGuest := nft.In(network.TAPName), nft.Out(network.TAPName)
	t := nft.Table{Family: nft.Inet, Name: tableName}
	var forward []nft.Rule
	if policy.Internet {
		outward := []nft.Match{fromGuest, nft.Out(insideLink)}
		with := func(m ...nft.Match) []nft.Match { return append(outward[:len(outward):len(outward)], m...) }
		t.Sets = []nft.Set{{Name: setDenied, Key: []nft.KeyType{nft.IPv4Addr}, Prefixes: withHost(denied, hostAddrs)}}
		forward = []nft.Rule{
			{Match: []nft.Match{nft.In(insideLink), toGuest, nft.Established()}, Verdict: nft.Accept()},
			{Match: with(nft.DestAmong(setDenied)), Verdict: nft.Reject()},
			{Match: with(nft.New(), nft.ConnectionsOver(maxConnections)), Verdict: nft.Reject()},
			{Match: with(nft.Source(network.GuestIP)), Verdict: nft.Accept()},
		}
	}
	forward = append(forward, nft.Rule{Match: []nft.Match{fromGuest}, Verdict: nft.Reject()})
	t.Chains = []nft.Chain{
		// The host's own connections to the guest are answered; nothing else comes in.
		{Name: "input", Type: "filter", Hook: "input", Priority: nft.PriorityFilter, Drop: true, Rules: []nft.Rule{
			{Match: []nft.Match{fromGuest, nft.Source(network.GuestIP), nft.Established(), nft.Reply()}, Verdict: nft.Accept()},
		}},
		{Name: "output", Type: "filter", Hook: "output", Priority: nft.PriorityFilter, Drop: true, Rules: []nft.Rule{
			{Match: []nft.Match{toGuest, nft.Dest(network.GuestIP)}, Verdict: nft.Accept()},
		}},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: nft.PriorityFilter, Drop: true, Rules: forward},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: nft.PrioritySource, Rules: []nft.Rule{
			{Match: []nft.Match{nft.Out(insideLink), nft.Source(network.GuestIP)}, Verdict: nft.SourceNAT(insideAddr(slot))},
		}},
	}
	return t
}

// withHost is the blocks and those of the host's addresses that none of them has, in order.
func withHost(blocks []netip.Prefix, hostAddrs []netip.Addr) []netip.Prefix {
	list := slices.Clone(blocks)
	for _, a := range hostAddrs {
		if a.Is4() && !slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) }) {
			list = append(list, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return list
}
