package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

// Defaults of Config.
const (
	// DefaultSlots is how many sandboxes may have a network at once.
	DefaultSlots = 1024
	// DefaultMaxConnections is how many connections one guest may have through the host at once.
	DefaultMaxConnections = 4096
)

// Config says how a Driver works. All processes of a host use the same.
type Config struct {
	// StateDir is the state folder. Its folder slots is made when it is not there.
	StateDir string
	// Slots is how many slots there are, at most MaxSlots; 0 means DefaultSlots.
	Slots int
	// MaxConnections bounds the connections of one guest, so that none fills the host's table of them; 0 means
	// DefaultMaxConnections.
	MaxConnections uint32
}

// Driver is a network.Driver on the kernel of this host. It needs root.
type Driver struct {
	stateDir string
	count    int
	maxConns uint32
	slots    slots

	pool atomic.Pointer[pool] // nil: no slots are kept ready

	mu    sync.Mutex
	known map[string]int // slots of sandboxes seen, to be checked before use
}

var _ network.Readier = (*Driver)(nil)

// New makes a driver. Errors: ErrInvalid for a Config that can't be.
func New(cfg Config) (*Driver, error) {
	dir, err := filepath.Abs(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if cfg.Slots == 0 {
		cfg.Slots = DefaultSlots
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if cfg.Slots < 0 || cfg.Slots > MaxSlots {
		return nil, errs.Field("slots", fmt.Sprintf("%d is out of range", cfg.Slots), fmt.Sprintf("give 1 to %d", MaxSlots))
	}
	if len(label(id.New(), dir)) > maxLabel {
		return nil, errs.Field("state-dir", fmt.Sprintf("%q is too long for the label of a network namespace", dir), "give a shorter path")
	}
	d := &Driver{stateDir: dir, count: cfg.Slots, maxConns: cfg.MaxConnections, known: map[string]int{},
		slots: slots{filepath.Join(dir, "slots")}}
	if err := os.MkdirAll(d.slots.dir, 0o700); err != nil {
		return nil, err
	}
	return d, nil
}

// The steps at which a test can stop the driver, in order. Those that end in "-gone" are steps of a release.
var (
	pointSlot       = failpoint.New("network.slot")
	pointTable      = failpoint.New("network.table")
	pointForwarding = failpoint.New("network.forwarding")
	pointNetNS      = failpoint.New("network.netns")
	pointTAP        = failpoint.New("network.tap")
	pointRules      = failpoint.New("network.rules")
	pointLinks      = failpoint.New("network.links")
	pointHostLink   = failpoint.New("network.host-link")
	pointOpen       = failpoint.New("network.open")
	pointOpenGone   = failpoint.New("network.open-gone")
	pointLinkGone   = failpoint.New("network.link-gone")
	pointNetNSGone  = failpoint.New("network.netns-gone")
	pointTableGone  = failpoint.New("network.table-gone")
)

// Failpoints are their names, in order.
func Failpoints() []string {
	return failpoint.Names(pointSlot, pointTable, pointForwarding, pointNetNS, pointTAP, pointRules, pointLinks, pointHostLink, pointOpen,
		pointOpenGone, pointLinkGone, pointNetNSGone, pointTableGone)
}

// step is where the driver may be stopped: by its caller's patience, or by a test.
func step(ctx context.Context, at failpoint.Point) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", at, context.Cause(ctx))
	}
	return failpoint.Here(ctx, at)
}

// Acquire implements network.Driver.
func (d *Driver) Acquire(ctx context.Context, sandbox string, policy network.Policy, uid func(slot int) int) (s network.Slot, err error) {
	if _, err := id.Parse(sandbox); err != nil {
		return s, err
	}
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	slot, err := d.slot(ctx, sandbox, policy, uid, cu)
	if err != nil {
		return s, fmt.Errorf("network of %s: %w", sandbox, err)
	}
	cu.Release()
	d.remember(sandbox, slot)
	return network.Slot{Index: slot, NetNS: netnsPath(slot), TAP: network.TAPName, HostAddr: insideAddr(slot)}, nil
}

// slot gives the sandbox a slot that is ready, or builds one.
func (d *Driver) slot(ctx context.Context, sandbox string, policy network.Policy, uid func(slot int) int, cu *cleanup.Stack) (int, error) {
	slot, ok, err := d.fromPool(ctx, sandbox, policy, uid, cu)
	if ok || err != nil {
		return slot, err
	}
	slot, err = d.reserve(ctx, sandbox, cu)
	if p := d.pool.Load(); p != nil && errors.Is(err, errs.ErrResourceExhausted) {
		p.building.Lock() // the last one may be on its way to be ready
		defer p.building.Unlock()
		if slot, ok, err := d.fromPool(ctx, sandbox, policy, uid, cu); ok || err != nil {
			return slot, err
		}
	}
	if err != nil {
		return 0, err
	}
	if err := d.furnish(ctx, slot, policy, uid(slot)); err != nil {
		return 0, fmt.Errorf("slot %d: %w", slot, err)
	}
	return slot, nil
}

// reserve finds a slot that nobody has, and makes what marks it as taken on the whole host: the link, then the host's
// table, then the namespace.
func (d *Driver) reserve(ctx context.Context, sandbox string, cu *cleanup.Stack) (slot int, err error) {
	unlock, err := lockHost()
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := shareNames(); err != nil {
		return 0, err
	}
	slot, err = d.pick(sandbox)
	if err != nil {
		return 0, err
	}
	if err := d.slots.claim(slot, sandbox); err != nil {
		return 0, err
	}
	cu.Add("release", func(ctx context.Context) error { return d.undo(ctx, slot, sandbox) })
	if err := step(ctx, pointSlot); err != nil {
		return 0, err
	}
	if err := prepareHost(ctx); err != nil {
		return 0, err
	}
	// A sandbox that had the slot before, and was never released, may have left it open.
	if err := nft.Exclude(hostTable(), setOpen, openElement(slot)); err != nil {
		return 0, err
	}
	if err := step(ctx, pointForwarding); err != nil {
		return 0, err
	}
	if err := makeNamespace(netnsPath(slot), label(sandbox, d.stateDir)); err != nil {
		return 0, err
	}
	return slot, step(ctx, pointNetNS)
}

// undo removes a slot that was not built to its end.
func (d *Driver) undo(ctx context.Context, slot int, owner string) error {
	if owner != ready {
		return d.Release(ctx, owner)
	}
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	return d.removeReady(ctx, slot)
}

// pick returns the lowest slot that is free. ErrAlreadyExists when the sandbox has one, ErrResourceExhausted when none is.
func (d *Driver) pick(sandbox string) (int, error) {
	taken, err := d.slots.all()
	if err != nil {
		return 0, err
	}
	for slot, owner := range taken {
		if owner == sandbox && sandbox != ready {
			return 0, fmt.Errorf("slot %d: %w", slot, errs.ErrAlreadyExists)
		}
	}
	named, err := namedSlots()
	if err != nil {
		return 0, err
	}
	for _, slot := range named {
		taken[slot] = "another"
	}
	for slot := range d.count {
		if taken[slot] == "" {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("all %d network slots are taken: %w", d.count, errs.ErrResourceExhausted)
}

// furnish builds the network of a reserved slot. The rules are in force before a link is on, and the slot is open last.
func (d *Driver) furnish(ctx context.Context, slot int, policy network.Policy, uid int) error {
	addrs, err := hostAddrs()
	if err != nil {
		return err
	}
	err = inside(netnsPath(slot), func(host *os.File) error { return d.furnishInside(ctx, slot, policy, uid, addrs, host) })
	if err != nil {
		return err
	}
	if err := raiseHost(slot); err != nil {
		return err
	}
	if err := step(ctx, pointHostLink); err != nil {
		return err
	}
	if policy.Internet {
		if err := nft.Include(hostTable(), setOpen, openElement(slot)); err != nil {
			return err
		}
	}
	return step(ctx, pointOpen)
}

// furnishInside is the part that is done in the namespace.
func (d *Driver) furnishInside(ctx context.Context, slot int, policy network.Policy, uid int, addrs []netip.Addr, host *os.File) error {
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, part := range []struct {
		done failpoint.Point
		make func() error
	}{
		{pointTAP, func() error { return errors.Join(setNamespaceSysctls(), makeTAP(uid)) }},
		{pointRules, func() error {
			return errors.Join(nft.Put(tapTable(), nil), nft.Put(slotTable(policy, slot, addrs, d.maxConns), nil))
		}},
		{pointLinks, func() error {
			if err := raiseTAP(h); err != nil {
				return err
			}
			if err := makePair(h, slot, host); err != nil {
				return err
			}
			return raiseInside(h, slot)
		}},
	} {
		if err := part.make(); err != nil {
			return err
		}
		if err := step(ctx, part.done); err != nil {
			return err
		}
	}
	return nil
}

func setNamespaceSysctls() error {
	return errors.Join(
		setSysctlIfAny("ipv6/conf/all/disable_ipv6", "1"), setSysctlIfAny("ipv6/conf/default/disable_ipv6", "1"),
		setSysctl("ipv4/ip_forward", "1"))
}

func openElement(slot int) nft.Element {
	return nft.Element{linkName(slot), insideAddr(slot).String()}
}

// find is the sandbox's slot. ErrNotFound when it has none.
func (d *Driver) find(sandbox string) (int, error) {
	d.mu.Lock()
	slot, ok := d.known[sandbox]
	d.mu.Unlock()
	if ok {
		if owner, err := d.slots.owner(slot); err != nil || owner == sandbox {
			return slot, err
		}
	}
	list, err := d.slots.of(sandbox)
	if err != nil {
		return 0, err
	}
	if len(list) == 0 {
		d.forget(sandbox)
		return 0, fmt.Errorf("network of %s: %w", sandbox, errs.ErrNotFound)
	}
	d.remember(sandbox, list[0])
	return list[0], nil
}

func (d *Driver) remember(sandbox string, slot int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[sandbox] = slot
}

func (d *Driver) forget(sandbox string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, sandbox)
}
