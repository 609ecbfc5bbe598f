package nft

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// Elements are the members of a table's sets that are not part of its text, by the set's name.
type Elements map[string][]Element

// Element is one member of a set: a field for each of the set's key types, an address or an interface's name.
type Element []string

// kernel is the set as the library has it. The number is unique in one transaction; 0 for a set that stands already.
func (s Set) kernel(table *nftables.Table, number uint32) *nftables.Set {
	types := make([]nftables.SetDatatype, len(s.Key))
	for i, k := range s.Key {
		types[i] = k.kind
	}
	return &nftables.Set{Table: table, Name: s.Name, ID: number, Interval: len(s.Prefixes) > 0,
		Concatenation: len(s.Key) > 1, KeyType: nftables.MustConcatSetType(types...)}
}

// members are the set's elements as the library has them: the fixed ones, or else those of the list.
func (s Set) members(list []Element) ([]nftables.SetElement, error) {
	if len(s.Prefixes) > 0 {
		return ranges(s.Prefixes), nil
	}
	var out []nftables.SetElement
	for _, e := range list {
		if len(e) != len(s.Key) {
			return nil, fmt.Errorf("set %s: element %q has %d fields, want %d", s.Name, e, len(e), len(s.Key))
		}
		var key []byte
		for i, field := range e {
			raw, err := s.Key[i].encode(field)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", s.Name, err)
			}
			key = append(key, raw...)
		}
		out = append(out, nftables.SetElement{Key: key})
	}
	return out, nil
}

func (k KeyType) encode(field string) ([]byte, error) {
	if k == IPv4Addr {
		a, err := netip.ParseAddr(field)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("%q is not an IPv4 address", field)
		}
		return a.AsSlice(), nil
	}
	if len(field) >= ifNameLen {
		return nil, fmt.Errorf("%q is too long for an interface's name", field)
	}
	raw := make([]byte, ifNameLen)
	copy(raw, field)
	return raw, nil
}

func (s Set) decode(key []byte) Element {
	var e Element
	for _, k := range s.Key {
		n := int(k.kind.Bytes)
		if len(key) < n {
			return nil
		}
		if k == IPv4Addr {
			a, _ := netip.AddrFromSlice(key[:n])
			e = append(e, a.String())
		} else {
			e = append(e, strings.TrimRight(string(key[:n]), "\x00"))
		}
		key = key[n:]
	}
	return e
}

// ranges turns ordered prefixes into the pairs of first address and first address after that the kernel wants. The last
// address of all has none after it.
func ranges(prefixes []netip.Prefix) []nftables.SetElement {
	var list []nftables.SetElement
	for _, p := range prefixes {
		first, after := bounds(p)
		list = append(list, nftables.SetElement{Key: first})
		if after != nil {
			list = append(list, nftables.SetElement{Key: after, IntervalEnd: true})
		}
	}
	return list
}

// bounds are a prefix's first address and the one after its last, nil when there is none.
func bounds(p netip.Prefix) (first, after []byte) {
	start := p.Masked().Addr().As4()
	number := uint64(start[0])<<24 | uint64(start[1])<<16 | uint64(start[2])<<8 | uint64(start[3])
	end := number + 1<<(32-p.Bits())
	if end > math.MaxUint32 {
		return start[:], nil
	}
	return start[:], []byte{byte(end >> 24), byte(end >> 16), byte(end >> 8), byte(end)}
}
