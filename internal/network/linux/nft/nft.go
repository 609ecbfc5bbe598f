// Package nft holds firewall rules as plain data: a table is a value that can be printed, compared and tested without any
// privilege, and only then put into the kernel.
//
// Each match and verdict knows its text, in the syntax of nft(8), and its expressions, which the kernel runs. Both are
// written side by side, so that a reader of a golden file reads what the kernel does.
//
// It is a leaf package.
package nft

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// Family is the kind of packets that a table sees.
type Family string

// The families in use: Inet sees IPv4 and IPv6, Netdev every frame of one device before the network stack does.
const (
	Inet   Family = "inet"
	Netdev Family = "netdev"
)

// Table is one table with all that it holds.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
}

// Set is a named set of keys.
type Set struct {
	Name string
	// Key is the type of one element; of several fields, a concatenation.
	Key []KeyType
	// Prefixes are fixed elements of an IPv4 set, disjoint and in order. A set without them is filled and emptied while the
	// table stands.
	Prefixes []netip.Prefix
}

// KeyType is the type of a set's key or of one field of it.
type KeyType struct {
	name string
	kind nftables.SetDatatype
}

// The key types in use.
var (
	IPv4Addr      = KeyType{"ipv4_addr", nftables.TypeIPAddr}
	InterfaceName = KeyType{"ifname", nftables.TypeIFName}
)

// Chain is a base chain: rules that the kernel runs at a hook.
type Chain struct {
	Name     string
	Type     string // filter or nat
	Hook     string // prerouting, input, forward, output, postrouting or ingress
	Device   string // of an ingress chain
	Priority int
	Drop     bool // the policy: drop what no rule decides; else accept it
	Rules    []Rule
}

// The priorities in use, by what they stand beside.
const (
	PriorityRaw    = -300 // before connection tracking and every address translation
	PriorityFilter = 0
	PrioritySource = 100 // source address translation
)

// Rule is one line: what must match, all of it, and what happens then.
type Rule struct {
	Match   []Match
	Verdict Verdict
}

// String is the table in the syntax of nft(8).
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	for _, s := range t.Sets {
		b.WriteString(s.text())
	}
	for i, c := range t.Chains {
		if i > 0 || len(t.Sets) > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(c.text())
	}
	b.WriteString("}\n")
	return b.String()
}

// Digest is a short hash of the table's text. Two tables with one digest do the same.
func (t Table) Digest() string {
	h := fnv.New64a()
	h.Write([]byte(t.String()))
	return fmt.Sprintf("%016x", h.Sum64())
}

func (s Set) text() string {
	var b strings.Builder
	fields := make([]string, len(s.Key))
	for i, k := range s.Key {
		fields[i] = k.name
	}
	fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.Name, strings.Join(fields, " . "))
	if len(s.Prefixes) > 0 {
		b.WriteString("\t\tflags interval\n\t\telements = {\n")
		for i, p := range s.Prefixes {
			comma := ","
			if i == len(s.Prefixes)-1 {
				comma = ""
			}
			fmt.Fprintf(&b, "\t\t\t%s%s\n", p, comma)
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

func (c Chain) text() string {
	var b strings.Builder
	device := ""
	if c.Device != "" {
		device = fmt.Sprintf(" device %q", c.Device)
	}
	policy := "accept"
	if c.Drop {
		policy = "drop"
	}
	fmt.Fprintf(&b, "\tchain %s {\n\t\ttype %s hook %s%s priority %d; policy %s;\n", c.Name, c.Type, c.Hook, device, c.Priority, policy)
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.String() + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// String is the rule in the syntax of nft(8).
func (r Rule) String() string {
	words := make([]string, 0, len(r.Match)+1)
	for _, m := range r.Match {
		words = append(words, m.text)
	}
	return strings.Join(append(words, r.Verdict.text), " ")
}
