package nft

import (
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Verdict is what happens to a packet that matched.
type Verdict struct {
	text  string
	exprs []expr.Any
}

// Accept lets the packet pass this table; other tables still see it.
func Accept() Verdict {
	return Verdict{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

// Drop counts the packet and forgets it.
func Drop() Verdict {
	return Verdict{"counter drop", []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}}
}

// Reject counts the packet, forgets it, and tells its sender at once that it may not go there.
func Reject() Verdict {
	return Verdict{"counter reject with icmpx admin-prohibited", []expr.Any{&expr.Counter{},
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}}
}

// Masquerade gives the packet the address of the interface that it leaves by.
func Masquerade() Verdict { return Verdict{"masquerade", []expr.Any{&expr.Masq{}}} }

// SourceNAT gives the packet the address. The rule must match IPv4 only.
func SourceNAT(to netip.Addr) Verdict {
	return Verdict{"snat ip to " + to.String(), []expr.Any{
		&expr.Immediate{Register: reg, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg},
	}}
}
