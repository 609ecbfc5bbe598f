package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// placeTries bounds how often a host is looked for anew that another one filled in the same moment.
const placeTries = 100

// ErrHostsJoin is how Create fails while no host takes sandboxes, but one will in a moment. It is an ErrUnavailable.
var ErrHostsJoin = fmt.Errorf("no host takes sandboxes yet: what they have is looked at first: %w", errs.ErrUnavailable)

// place finds a host for a sandbox, the one that is named or any, and writes it and the sizes that it will have there into n. The host's row
// stays locked until the transaction ends, so that the insert that follows finds the room that was seen.
func place(ctx context.Context, q *db.Queries, n *NewSandbox, host string) error {
	for range placeTries {
		at, err := q.Place(ctx, db.PlaceParams{Vcpus: n.Sizes.VCPUs, MemoryMib: n.Sizes.MemoryMiB, DiskBytes: n.Sizes.DiskBytes,
			Template: n.Sizes.Template, HostID: host})
		if err == nil {
			n.Host, n.Sizes = at.ID, Sizes{n.Sizes.Template, at.Vcpus, at.MemoryMib, at.DiskBytes}
			return nil
		}
		if err = kind(err); !errors.Is(err, errs.ErrNotFound) {
			return err
		}
		fits, err := q.AnyFits(ctx, db.AnyFitsParams{Vcpus: n.Sizes.VCPUs, MemoryMib: n.Sizes.MemoryMiB, DiskBytes: n.Sizes.DiskBytes,
			Template: n.Sizes.Template, HostID: host})
		switch {
		case err != nil:
			return err
		case !fits:
			return refusal(ctx, q, n.Sizes, host)
		}
		// Whoever held the lock took the last room of the first choice, and another host has some.
	}
	return fmt.Errorf("the hosts fill up too fast for this sandbox to find its place: %w", errs.ErrUnavailable)
}

// refusal says what is short, or that there is no host at all.
func refusal(ctx context.Context, q *db.Queries, want Sizes, host string) error {
	room, err := q.Room(ctx, db.RoomParams{HostID: host, Template: want.Template})
	if err != nil {
		return err
	}
	if room.Hosts == 0 {
		if joining, err := q.AnyJoining(ctx, host); joining || err != nil {
			return cmp.Or(err, ErrHostsJoin)
		}
	}
	switch {
	case room.Hosts == 0 && host == "":
		return fmt.Errorf("no host takes sandboxes now: all are lost, draining or not there yet: %w", errs.ErrUnavailable)
	case room.Hosts == 0:
		return fmt.Errorf("host %s, which has the snapshot, takes no sandboxes now: %w", host, errs.ErrUnavailable)
	}
	list, err := q.TemplatesOfHosts(ctx)
	if err != nil {
		return err
	}
	known := host != ""
	for _, t := range list {
		if t.Name == want.Template {
			known = true
			want = Sizes{t.Name, cmp.Or(want.VCPUs, t.Vcpus), cmp.Or(want.MemoryMiB, t.MemoryMib), cmp.Or(want.DiskBytes, t.DiskBytes)}
		}
	}
	if !known {
		return fmt.Errorf("template %q: no host has it: %w", want.Template, errs.ErrNotFound)
	}
	var short []string
	for _, r := range []struct {
		what             string
		want, free, none int64
	}{
		{"sandboxes", 1, int64(room.Sandboxes), math.MaxInt32},
		{"vcpus", int64(want.VCPUs), int64(room.Vcpus), math.MaxInt32},
		{"MiB of memory", int64(want.MemoryMiB), room.MemoryMib, math.MaxInt64},
		{"bytes of disk", int64(want.MemoryMiB)<<20 + want.DiskBytes, room.DiskBytes, math.MaxInt64},
	} {
		if r.free != r.none && r.want > r.free {
			short = append(short, fmt.Sprintf("%d %s (%d are free)", r.want, r.what, max(r.free, 0)))
		}
	}
	if len(short) == 0 {
		short = append(short, fmt.Sprintf("%d vcpus, %d MiB of memory and %d bytes of disk together", want.VCPUs, want.MemoryMiB, want.DiskBytes))
	}
	return fmt.Errorf("no host has room for %s: %w", strings.Join(short, ", "), errs.ErrResourceExhausted)
}
