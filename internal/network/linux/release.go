package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

// Release implements network.Driver.
func (d *Driver) Release(ctx context.Context, sandbox string) error {
	if _, err := id.Parse(sandbox); err != nil {
		return err
	}
	d.forget(sandbox)
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	linked, err := d.slots.of(sandbox)
	if err != nil {
		return err
	}
	orphans, err := d.orphans()
	if err != nil {
		return err
	}
	list := slices.Clone(linked)
	for slot, owner := range orphans {
		if owner == sandbox {
			list = append(list, slot)
		}
	}
	for _, slot := range list {
		if err := d.remove(ctx, slot, sandbox); err != nil {
			return fmt.Errorf("network of %s, slot %d: %w", sandbox, slot, err)
		}
	}
	if len(list) == 0 {
		return nil
	}
	if err := clearHost(ctx); err != nil {
		return err
	}
	for _, slot := range linked {
		if err := d.slots.free(slot); err != nil {
			return err
		}
	}
	return nil
}

// remove takes a slot apart in the kernel, unless the slot is another state folder's by now. The caller holds the lock.
func (d *Driver) remove(ctx context.Context, slot int, sandbox string) error {
	path := netnsPath(slot)
	text, err := namespaceLabel(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNoNamespace):
		// Never named, or no more: the pair can still be there.
	case err != nil:
		return err
	default:
		// One that still says it is ready, with a link to the sandbox, was being given to it.
		if owner, ours := labelOwner(text, d.stateDir); !ours || owner != sandbox && owner != ready {
			return nil
		}
	}
	if err := nft.Exclude(hostTable(), setOpen, openElement(slot)); err != nil {
		return err
	}
	if err := step(ctx, pointOpenGone); err != nil {
		return err
	}
	if err := removePair(slot); err != nil {
		return err
	}
	if err := step(ctx, pointLinkGone); err != nil {
		return err
	}
	if err := unname(path); err != nil {
		return err
	}
	return step(ctx, pointNetNSGone)
}

// orphans is the namespaces of this state folder that no link names, and whose they were.
func (d *Driver) orphans() (map[int]string, error) {
	// Names are read before links: a slot has its link before its name, and keeps it longer.
	named, err := namedSlots()
	if err != nil {
		return nil, err
	}
	taken, err := d.slots.all()
	if err != nil {
		return nil, err
	}
	list := map[int]string{}
	for _, slot := range named {
		if taken[slot] != "" {
			continue
		}
		text, err := namespaceLabel(netnsPath(slot))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if owner, ours := labelOwner(text, d.stateDir); ours {
			list[slot] = owner
		}
	}
	return list, nil
}

// List implements network.Driver.
func (d *Driver) List(context.Context) ([]string, error) {
	orphans, err := d.orphans()
	if err != nil {
		return nil, err
	}
	taken, err := d.slots.all()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, some := range []map[int]string{orphans, taken} {
		for _, owner := range some {
			if _, err := id.Parse(owner); err == nil {
				ids = append(ids, owner)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Close implements network.Driver. It also removes pairs of ours whose namespace has lost its name, and ready slots that nobody keeps.
func (d *Driver) Close(ctx context.Context) error {
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.sweepAbandoned(ctx); err != nil {
		return err
	}
	return clearHost(ctx)
}
