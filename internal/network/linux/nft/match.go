package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Match is one condition of a rule.
type Match struct {
	text  string
	exprs func(sets map[string]*nftables.Set) []expr.Any
}

// Registers of the kernel's rule machine. The first 16-byte register is also the 4-byte registers 8 to 11, so a 16-byte
// value in it and a 4-byte value in number 12 lie side by side, as the key of a concatenated set wants them.
const (
	reg     = unix.NFT_REG_1
	regNext = unix.NFT_REG32_00 + 4
)

// Offsets in the headers that the matches read.
const (
	ipSource, ipDest  = 12, 16
	etherSource       = 6
	arpHeader         = 0 // hardware and protocol type, their lengths, operation: 8 bytes
	arpSenderEther    = 8
	arpSenderIP       = 14
	arpTargetIP       = 24
	ifNameLen         = 16
	connDirectionRepl = 1
	statusDNAT        = 1 << 5
)

func fixed(list ...expr.Any) func(map[string]*nftables.Set) []expr.Any {
	return func(map[string]*nftables.Set) []expr.Any { return list }
}

// In matches packets that came in on the interface. A name that ends in * means every interface whose name starts so.
func In(name string) Match { return ifname("iifname", expr.MetaKeyIIFNAME, name, expr.CmpOpEq) }

// NotIn matches packets that came in on another interface.
func NotIn(name string) Match { return ifname("iifname !=", expr.MetaKeyIIFNAME, name, expr.CmpOpNeq) }

// Out matches packets that leave by the interface.
func Out(name string) Match { return ifname("oifname", expr.MetaKeyOIFNAME, name, expr.CmpOpEq) }

// NotOut matches packets that leave by another interface.
func NotOut(name string) Match {
	return ifname("oifname !=", expr.MetaKeyOIFNAME, name, expr.CmpOpNeq)
}

func ifname(word string, key expr.MetaKey, name string, op expr.CmpOp) Match {
	// Without a wildcard the name's end is compared too.
	data := make([]byte, ifNameLen)
	copy(data, name)
	if prefix, wild := strings.CutSuffix(name, "*"); wild {
		data = []byte(prefix)
	}
	return Match{fmt.Sprintf("%s %q", word, name), fixed(
		&expr.Meta{Key: key, Register: reg}, &expr.Cmp{Op: op, Register: reg, Data: data})}
}

// InAmong matches packets that came in on an interface whose name is in the set.
func InAmong(set string) Match {
	return Match{"iifname @" + set, func(sets map[string]*nftables.Set) []expr.Any {
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}, lookup(sets[set], false)}
	}}
}

// SourceNotAmong matches IPv4 packets whose interface and source address are together not in the set.
func SourceNotAmong(set string) Match {
	return Match{"iifname . ip saddr != @" + set, func(sets map[string]*nftables.Set) []expr.Any {
		return append(isIPv4(),
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
			&expr.Payload{DestRegister: regNext, Base: expr.PayloadBaseNetworkHeader, Offset: ipSource, Len: 4},
			lookup(sets[set], true))
	}}
}

// DestAmong matches IPv4 packets to an address in the set.
func DestAmong(set string) Match {
	return Match{"ip daddr @" + set, func(sets map[string]*nftables.Set) []expr.Any {
		return append(isIPv4(),
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: ipDest, Len: 4},
			lookup(sets[set], false))
	}}
}

func lookup(set *nftables.Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID, Invert: invert}
}

// Source matches IPv4 packets from the address, and Dest those to it.
func Source(a netip.Addr) Match { return address("ip saddr", ipSource, a) }

// Dest matches IPv4 packets to the address.
func Dest(a netip.Addr) Match { return address("ip daddr", ipDest, a) }

func address(word string, offset uint32, a netip.Addr) Match {
	return Match{fmt.Sprintf("%s %s", word, a), fixed(append(isIPv4(), equal(expr.PayloadBaseNetworkHeader, offset, a.AsSlice())...)...)}
}

// IPv6 matches every IPv6 packet.
func IPv6() Match { return Match{"meta nfproto ipv6", fixed(proto(unix.NFPROTO_IPV6)...)} }

// isIPv4 is what nft(8) puts before a match on an IPv4 header by itself.
func isIPv4() []expr.Any { return proto(unix.NFPROTO_IPV4) }

func proto(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{number}}}
}

func equal(base expr.PayloadBase, offset uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data},
	}
}

// LocalDest matches packets to an address of this machine itself.
func LocalDest() Match {
	return Match{"fib daddr type local", fixed(
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})}
}

// Established matches packets of a connection that was let through before, and errors about one.
func Established() Match {
	return ctBits("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpNeq)
}

// NotEstablished matches all other packets.
func NotEstablished() Match {
	return ctBits("ct state ! established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpEq)
}

// New matches the first packet of a connection.
func New() Match { return ctBits("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW, expr.CmpOpNeq) }

// NotDNAT matches packets of a connection whose destination nobody translated.
func NotDNAT() Match { return ctBits("ct status ! dnat", expr.CtKeySTATUS, statusDNAT, expr.CmpOpEq) }

// ctBits compares some bits of the connection with zero.
func ctBits(text string, key expr.CtKey, bits uint32, op expr.CmpOp) Match {
	zero := make([]byte, 4)
	return Match{text, fixed(
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: zero},
		&expr.Cmp{Op: op, Register: reg, Data: zero})}
}

// Reply matches packets that answer: they go from the side that was called to the side that called.
func Reply() Match {
	return Match{"ct direction reply", fixed(
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{connDirectionRepl}})}
}

// ConnectionsOver matches when more than n connections have passed this rule and still live.
func ConnectionsOver(n uint32) Match {
	return Match{fmt.Sprintf("ct count over %d", n), fixed(&expr.Connlimit{Count: n, Flags: expr.NFT_CONNLIMIT_F_INV})}
}

// The matches below are for Netdev tables, which see frames and not packets.

// EtherSource matches frames from the hardware address.
func EtherSource(mac net.HardwareAddr) Match {
	return Match{"ether saddr " + mac.String(), fixed(append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint16(unix.ARPHRD_ETHER)},
	}, equal(expr.PayloadBaseLLHeader, etherSource, mac)...)...)}
}

// FrameSource matches frames that carry an IPv4 packet from the address.
func FrameSource(a netip.Addr) Match {
	return Match{fmt.Sprintf("ip saddr %s", a), fixed(
		append(etherType(unix.ETH_P_IP), equal(expr.PayloadBaseNetworkHeader, ipSource, a.AsSlice())...)...)}
}

// ARPRequest matches questions by the sender, under its own hardware and IPv4 address, for the target's hardware address.
func ARPRequest(mac net.HardwareAddr, sender, target netip.Addr) Match {
	const request = 1
	header := []byte{0, 1, 8, 0, 6, 4, 0, request}
	list := etherType(unix.ETH_P_ARP)
	for _, e := range [][]expr.Any{
		equal(expr.PayloadBaseNetworkHeader, arpHeader, header),
		equal(expr.PayloadBaseNetworkHeader, arpSenderEther, mac),
		equal(expr.PayloadBaseNetworkHeader, arpSenderIP, sender.AsSlice()),
		equal(expr.PayloadBaseNetworkHeader, arpTargetIP, target.AsSlice()),
	} {
		list = append(list, e...)
	}
	text := fmt.Sprintf("arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation request arp saddr ether %s arp saddr ip %s arp daddr ip %s",
		mac, sender, target)
	return Match{text, fixed(list...)}
}

func etherType(number uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}
