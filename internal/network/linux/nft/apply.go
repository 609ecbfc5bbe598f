package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// Patience bounds one exchange with the kernel: a reply that does not come must not hold a caller for ever.
const Patience = time.Minute

func conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetDeadline(time.Now().Add(Patience)) }))
}

// Put makes the table of the calling thread's network namespace what t says, with these elements in its sets, in one
// transaction: a packet sees the old table or the new one, never half.
func Put(t Table, elements Elements) error {
	c, err := conn()
	if err != nil {
		return err
	}
	table := t.kernel()
	// Adding and deleting first makes the rest start from nothing, whether there was a table or not.
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	sets := map[string]*nftables.Set{}
	for i, s := range t.Sets {
		ks := s.kernel(table, uint32(i+1))
		sets[s.Name] = ks
		list, err := s.members(elements[s.Name])
		if err != nil {
			return err
		}
		if err := c.AddSet(ks, list); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, ch := range t.Chains {
		kc, err := ch.kernel(table)
		if err != nil {
			return err
		}
		c.AddChain(kc)
		for _, r := range ch.Rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: kc, Exprs: r.compile(sets)})
		}
	}
	// A chain that no hook runs carries the digest: Current finds it, and people see it in a listing.
	c.AddChain(&nftables.Chain{Table: table, Name: t.mark()})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("put table %s %s: %w", t.Family, t.Name, err)
	}
	return nil
}

func (t Table) mark() string { return "digest-" + t.Digest() }

// Find says whether the namespace has a table of t's family and name, and whether its rules are those of t. Somebody who
// changes single rules by hand is not noticed.
func Find(t Table) (exists, current bool, err error) {
	c, err := conn()
	if err != nil {
		return false, false, err
	}
	tables, err := c.ListTablesOfFamily(t.kernel().Family)
	if err != nil {
		return false, false, fmt.Errorf("list tables: %w", err)
	}
	for _, table := range tables {
		exists = exists || table.Name == t.Name
	}
	if !exists {
		return false, false, nil
	}
	chains, err := c.ListChainsOfTableFamily(t.kernel().Family)
	if err != nil {
		return false, false, fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		current = current || ch.Table.Name == t.Name && ch.Name == t.mark()
	}
	return exists, current, nil
}

// Remove deletes the table if it is there.
func Remove(t Table) error {
	c, err := conn()
	if err != nil {
		return err
	}
	c.AddTable(t.kernel())
	c.DelTable(t.kernel())
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove table %s %s: %w", t.Family, t.Name, err)
	}
	return nil
}

// Members lists the elements of a set that has no fixed ones. A table that is not there has none.
func Members(t Table, set string) ([]Element, error) {
	if exists, _, err := Find(t); !exists || err != nil {
		return nil, err
	}
	s, err := t.set(set)
	if err != nil {
		return nil, err
	}
	c, err := conn()
	if err != nil {
		return nil, err
	}
	raw, err := c.GetSetElements(s.kernel(t.kernel(), 0))
	if err != nil {
		return nil, fmt.Errorf("list set %s: %w", set, err)
	}
	var list []Element
	for _, r := range raw {
		if e := s.decode(r.Key); e != nil {
			list = append(list, e)
		}
	}
	return list, nil
}

// Include adds elements to a set; one that is in already is no error.
func Include(t Table, set string, list ...Element) error {
	return change(t, set, list, func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error { return nil })
}

// Exclude takes elements out of a set. One that is not in is no error, nor is a table that is not there.
func Exclude(t Table, set string, list ...Element) error {
	// Adding them first makes the deletion, in the same transaction, find them.
	err := change(t, set, list, (*nftables.Conn).SetDeleteElements)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func change(t Table, set string, list []Element, then func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	if len(list) == 0 {
		return nil
	}
	s, err := t.set(set)
	if err != nil {
		return err
	}
	c, err := conn()
	if err != nil {
		return err
	}
	ks := s.kernel(t.kernel(), 0)
	members, err := s.members(list)
	if err != nil {
		return err
	}
	if err := errors.Join(c.SetAddElements(ks, members), then(c, ks, members)); err != nil {
		return fmt.Errorf("set %s: %w", set, err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("change set %s: %w", set, err)
	}
	return nil
}

func (t Table) set(name string) (Set, error) {
	for _, s := range t.Sets {
		if s.Name == name {
			return s, nil
		}
	}
	return Set{}, fmt.Errorf("table %s has no set %q", t.Name, name)
}

func (t Table) kernel() *nftables.Table {
	family := nftables.TableFamilyINet
	if t.Family == Netdev {
		family = nftables.TableFamilyNetdev
	}
	return &nftables.Table{Family: family, Name: t.Name}
}

func (c Chain) kernel(table *nftables.Table) (*nftables.Chain, error) {
	hooks := map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
		"output": nftables.ChainHookOutput, "postrouting": nftables.ChainHookPostrouting, "ingress": nftables.ChainHookIngress,
	}
	if hooks[c.Hook] == nil || c.Type != "filter" && c.Type != "nat" {
		return nil, fmt.Errorf("chain %s: no type %q at hook %q", c.Name, c.Type, c.Hook)
	}
	policy := nftables.ChainPolicyAccept
	if c.Drop {
		policy = nftables.ChainPolicyDrop
	}
	return &nftables.Chain{Table: table, Name: c.Name, Type: nftables.ChainType(c.Type), Hooknum: hooks[c.Hook],
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority)), Policy: &policy, Device: c.Device}, nil
}

func (r Rule) compile(sets map[string]*nftables.Set) []expr.Any {
	var list []expr.Any
	for _, m := range r.Match {
		list = append(list, m.exprs(sets)...)
	}
	return append(list, r.Verdict.exprs...)
}
