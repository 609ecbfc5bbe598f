// Package publicaddr says which addresses are of the public internet, for who must not be led anywhere else: a guest, and a server that sends what a
// stranger asked for to where the stranger says.
//
//	if !publicaddr.Is(addr) { refuse }
//
// A name says nothing: it is the address that a connection goes to that must be asked about, at the moment when it is made.
//
// It is a leaf package: it imports nothing of ours.
package publicaddr

import (
	"net/netip"
	"slices"
)

// NotPublic4 is every IPv4 block that is not the public internet, in order. Beside each, what it is.
var NotPublic4 = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carrier-grade NAT, and Alibaba's metadata service
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's metadata service, the only one at a public address
	"169.254.0.0/16",   // link-local, and every other cloud's metadata service
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays: a way into IPv6
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks: sandboxes' own addresses
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
)

// global6 is the only block of IPv6 that public addresses are given from. Outside it are loopback, IPv4 in other clothes (::ffff:0:0/96, NAT64's
// 64:ff9b::/96 and 64:ff9b:1::/48), unique local addresses, which have a cloud's metadata service among them, link-local ones and multicast.
var global6 = netip.MustParsePrefix("2000::/3")

// notPublic6 are blocks in global6 that are not the public internet.
var notPublic6 = prefixes(
	"2001::/23",     // protocol assignments, Teredo among them: a way into IPv4
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: a way into IPv4
	"3fff::/20",     // documentation
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Is says whether an address is of the public internet. An IPv4 address that is written as one of IPv6 is what it stands for.
func Is(a netip.Addr) bool {
	a = a.Unmap()
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case !a.IsValid() || a.Zone() != "":
		return false
	case a.Is4():
		return !slices.ContainsFunc(NotPublic4, has)
	}
	return global6.Contains(a) && !slices.ContainsFunc(notPublic6, has)
}
