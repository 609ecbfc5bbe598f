package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"pgregory.net/rapid"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestTableText(t *testing.T) {
	ip, mac := netip.MustParseAddr("10.0.0.1"), net.HardwareAddr{2, 0, 0, 0, 0, 1}
	table := Table{Family: Inet, Name: "x",
		Sets: []Set{{Name: "closed", Key: []KeyType{IPv4Addr}, Prefixes: prefixes("0.0.0.0/8", "10.0.0.0/8")},
			{Name: "open", Key: []KeyType{InterfaceName, IPv4Addr}}},
		Chains: []Chain{
			{Name: "in", Type: "filter", Hook: "forward", Priority: PriorityRaw, Drop: true, Rules: []Rule{
				{[]Match{In("v*"), NotOut("eth0"), SourceNotAmong("open")}, Drop()},
				{[]Match{DestAmong("closed"), New(), ConnectionsOver(7)}, Reject()},
				{nil, Accept()}}},
			{Name: "frames", Type: "filter", Hook: "ingress", Device: "tap0", Rules: []Rule{
				{[]Match{EtherSource(mac), FrameSource(ip)}, Accept()}}},
			{Name: "out", Type: "nat", Hook: "postrouting", Priority: PrioritySource, Rules: []Rule{
				{[]Match{Source(ip), Dest(ip), NotDNAT()}, SourceNAT(ip)}, {[]Match{LocalDest(), Reply(), IPv6()}, Masquerade()}}},
		}}
	want := `table inet x {
	set closed {
		type ipv4_addr
		flags interval
		elements = {
			0.0.0.0/8,
			10.0.0.0/8
		}
	}
	set open {
		type ifname . ipv4_addr
	}

	chain in {
		type filter hook forward priority -300; policy drop;
		iifname "v*" oifname != "eth0" iifname . ip saddr != @open counter drop
		ip daddr @closed ct state new ct count over 7 counter reject with icmpx admin-prohibited
		accept
	}

	chain frames {
		type filter hook ingress device "tap0" priority 0; policy accept;
		ether saddr 02:00:00:00:00:01 ip saddr 10.0.0.1 accept
	}

	chain out {
		type nat hook postrouting priority 100; policy accept;
		ip saddr 10.0.0.1 ip daddr 10.0.0.1 ct status ! dnat snat ip to 10.0.0.1
		fib daddr type local ct direction reply meta nfproto ipv6 masquerade
	}
}
`
	if diff := cmp.Diff(want, table.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (Table{Family: Netdev, Name: "y"}).String(); got != "table netdev y {\n}\n" {
		t.Errorf("an empty table is %q", got)
	}
}

// TestDigest: every part of a table changes it.
func TestDigest(t *testing.T) {
	base := func() Table {
		return Table{Family: Inet, Name: "x", Sets: []Set{{Name: "s", Key: []KeyType{IPv4Addr}, Prefixes: prefixes("10.0.0.0/8")}},
			Chains: []Chain{{Name: "c", Type: "filter", Hook: "input", Rules: []Rule{{[]Match{In("a")}, Drop()}}}}}
	}
	seen := map[string]int{base().Digest(): -1}
	for i, change := range []func(*Table){
		func(t *Table) { t.Family = Netdev }, func(t *Table) { t.Name = "z" }, func(t *Table) { t.Sets[0].Name = "z" },
		func(t *Table) { t.Sets[0].Key = []KeyType{InterfaceName} }, func(t *Table) { t.Sets[0].Prefixes = nil },
		func(t *Table) { t.Sets[0].Prefixes = prefixes("10.0.0.0/9") }, func(t *Table) { t.Chains = nil },
		func(t *Table) { t.Chains[0].Drop = true }, func(t *Table) { t.Chains[0].Priority = 1 }, func(t *Table) { t.Chains[0].Hook = "output" },
		func(t *Table) { t.Chains[0].Rules = nil }, func(t *Table) { t.Chains[0].Rules[0].Match = nil },
		func(t *Table) { t.Chains[0].Rules[0].Match[0] = In("a*") }, func(t *Table) { t.Chains[0].Rules[0].Verdict = Accept() },
	} {
		table := base()
		change(&table)
		if other, twice := seen[table.Digest()]; twice {
			t.Errorf("changes %d and %d make the same digest", i, other)
		}
		seen[table.Digest()] = i
	}
	if again := base(); seen[again.Digest()] != -1 || len(again.mark()) > 128 {
		t.Errorf("the mark %q is not the same again, or no name for a chain", again.mark())
	}
}

// TestMembersThereAndBack: what is put into a set is what is read from it.
func TestMembersThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Set{Name: "s", Key: rapid.SliceOfN(rapid.SampledFrom([]KeyType{IPv4Addr, InterfaceName}), 1, 3).Draw(t, "key")}
		var e Element
		for _, k := range s.Key {
			if k == IPv4Addr {
				e = append(e, netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))).String())
			} else {
				e = append(e, rapid.StringMatching(`[a-z0-9.-]{1,15}`).Draw(t, "name"))
			}
		}
		got, err := s.members([]Element{e})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if bytes := int(s.kernel(nil, 0).KeyType.Bytes); len(got[0].Key) != bytes {
			t.Fatalf("%d bytes in a key of %d", len(got[0].Key), bytes)
		}
		if back := s.decode(got[0].Key); !slices.Equal(back, e) {
			t.Fatalf("%q becomes %q", e, back)
		}
		if s.decode(got[0].Key[1:]) != nil {
			t.Fatal("a short key is decoded")
		}
	})
}

func TestMembersRefused(t *testing.T) {
	address, both := Set{Name: "s", Key: []KeyType{IPv4Addr}}, Set{Name: "s", Key: []KeyType{InterfaceName, IPv4Addr}}
	for _, c := range []struct {
		set  Set
		e    Element
		says string
	}{
		{address, Element{}, "0 fields, want 1"}, {address, Element{"10.0.0.1", "x"}, "2 fields, want 1"}, {both, Element{"10.0.0.1"}, "1 fields, want 2"},
		{address, Element{"::1"}, "not an IPv4"}, {address, Element{"::ffff:10.0.0.1"}, "not an IPv4"}, {address, Element{"10.0.0.0/8"}, "not an IPv4"},
		{address, Element{""}, "not an IPv4"}, {both, Element{"0123456789abcdef", "10.0.0.1"}, "too long"}, {both, Element{"10.0.0.1", "eth0"}, "not an IPv4"},
	} {
		if _, err := c.set.members([]Element{c.e}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %q", c.e, err, c.says)
		}
	}
}

// inside answers as the kernel does for a key in a set of ranges: by the last element that is not above it.
func inside(list []nftables.SetElement, key []byte) bool {
	in := false
	for _, e := range list {
		if bytes.Compare(e.Key, key) <= 0 {
			in = !e.IntervalEnd
		}
	}
	return in
}

// TestRangesAreThePrefixes asks for addresses at and around the ends of prefixes.
func TestRangesAreThePrefixes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []netip.Prefix
		for next := uint64(0); next < 1<<32; { // ordered and disjoint, with and without gaps
			bits := rapid.IntRange(0, 32).Draw(t, "bits")
			size := uint64(1) << (32 - bits)
			start := (next + size - 1) / size * size
			if start+size > 1<<32 || len(list) == 20 {
				break
			}
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], uint32(start))
			list = append(list, netip.PrefixFrom(netip.AddrFrom4(a), bits))
			next = start + size + uint64(rapid.SampledFrom([]int{0, 1, 1 << 16}).Draw(t, "gap"))
		}
		elements := ranges(list)
		for _, e := range elements {
			n := binary.BigEndian.Uint32(e.Key)
			for _, probe := range []uint32{n - 1, n, n + 1, 0, 1<<32 - 1} {
				key := binary.BigEndian.AppendUint32(nil, probe)
				a, _ := netip.AddrFromSlice(key)
				want := slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
				// Where one range ends and the next begins there are two elements of one key; the begin counts.
				if got := inside(elements, key); got != want {
					t.Fatalf("%v: is %v in it? %v", list, a, got)
				}
			}
		}
	})
}

func TestBounds(t *testing.T) {
	for p, want := range map[string]string{
		"0.0.0.0/0": "0.0.0.0-", "255.255.255.255/32": "255.255.255.255-", "240.0.0.0/4": "240.0.0.0-", "10.0.0.0/8": "10.0.0.0-11.0.0.0",
		"10.1.2.3/8": "10.0.0.0-11.0.0.0", "0.0.0.0/32": "0.0.0.0-0.0.0.1", "127.255.255.255/32": "127.255.255.255-128.0.0.0",
	} {
		first, after := bounds(netip.MustParsePrefix(p))
		got := net.IP(first).String() + "-"
		if after != nil {
			got += net.IP(after).String()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", p, got, want)
		}
	}
}

// TestInterfaceNames: without a wildcard the name's end is compared too.
func TestInterfaceNames(t *testing.T) {
	for name, want := range map[string]string{
		"eth0": "eth0" + strings.Repeat("\x00", 12), "wrenn-v*": "wrenn-v", "*": "", "0123456789abcde": "0123456789abcde\x00",
	} {
		for _, m := range []Match{In(name), NotIn(name), Out(name), NotOut(name)} {
			list := m.exprs(nil)
			if got := string(list[1].(*expr.Cmp).Data); len(list) != 2 || got != want {
				t.Errorf("%s: compares with %q, want %q", m.text, got, want)
			}
		}
	}
}

// TestAKeyOfTwoFieldsLiesTogether: the lookup of name and address reads 20 bytes from the register that the name is in.
func TestAKeyOfTwoFieldsLiesTogether(t *testing.T) {
	s := Set{Name: "open", Key: []KeyType{InterfaceName, IPv4Addr}}
	ks := s.kernel(&nftables.Table{Name: "x"}, 3)
	if !ks.Concatenation || ks.Interval || ks.ID != 3 || ks.KeyType.Bytes != ifNameLen+4 {
		t.Errorf("the set is %+v", ks)
	}
	list := SourceNotAmong("open").exprs(map[string]*nftables.Set{"open": ks})
	name, address, find := list[2].(*expr.Meta), list[3].(*expr.Payload), list[4].(*expr.Lookup)
	// Register 1 is the four small registers 8 to 11; the one after is 12.
	if name.Register != 1 || address.DestRegister != 12 || find.SourceRegister != 1 || !find.Invert || find.SetName != "open" || find.SetID != 3 {
		t.Errorf("the rule is %+v, %+v, %+v", name, address, find)
	}
}

func TestChainsRefused(t *testing.T) {
	for _, c := range []Chain{{}, {Type: "filter", Hook: "nowhere"}, {Type: "route", Hook: "output"}, {Type: "nat"}} {
		if _, err := c.kernel(nil); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, drop := range []bool{false, true} {
		got, err := (Chain{Name: "c", Type: "filter", Hook: "ingress", Device: "d", Priority: -5, Drop: drop}).kernel(nil)
		if err != nil || (*got.Policy == nftables.ChainPolicyDrop) != drop || got.Device != "d" || *got.Priority != -5 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestRulesAreCompiledInOrder: all matches, then the verdict.
func TestRulesAreCompiledInOrder(t *testing.T) {
	r := Rule{[]Match{In("a"), ConnectionsOver(7)}, Drop()}
	var got []string
	for _, e := range r.compile(nil) {
		got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr."))
	}
	if want := []string{"Meta", "Cmp", "Connlimit", "Counter", "Verdict"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSetsAreFoundByName(t *testing.T) {
	table := Table{Name: "x", Sets: []Set{{Name: "a"}, {Name: "b"}}}
	if s, err := table.set("b"); err != nil || s.Name != "b" {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := table.set("c"); err == nil {
		t.Error("a set that is not there is found")
	}
}
