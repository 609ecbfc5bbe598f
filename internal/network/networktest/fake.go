package networktest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
)

// Fake is a network.Driver that keeps its slots in memory. Its zero value has no slots. Set the fields before use.
type Fake struct {
	// Slots is how many slots there are.
	Slots int
	// Guest answers a Dial for the sandbox's port. Nil, or nil from it without an error, is a guest that does not answer.
	Guest func(ctx context.Context, sandbox string, port int) (net.Conn, error)
	// Fail is asked before each operation ("acquire", "dial", "release", "list", "close") on the sandbox, "" for none; an
	// error from it is the operation's. An acquire that fails so has left nothing; a release, everything.
	Fail func(op, sandbox string) error

	mu    sync.Mutex
	taken map[string]Taken
}

// Taken is a slot of a Fake that a sandbox has.
type Taken struct {
	Slot   network.Slot
	Policy network.Policy
	UID    int
}

var _ network.Meter = (*Fake)(nil)

// Taken lists the slots that are taken, by sandbox.
func (f *Fake) Taken() map[string]Taken {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.taken)
}

func (f *Fake) fail(op, sandbox string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(op, sandbox)
}

// Acquire implements network.Driver.
func (f *Fake) Acquire(ctx context.Context, sandbox string, policy network.Policy, uid func(slot int) int) (network.Slot, error) {
	if _, err := id.Parse(sandbox); err != nil {
		return network.Slot{}, err
	}
	if ctx.Err() != nil {
		return network.Slot{}, context.Cause(ctx)
	}
	if err := f.fail("acquire", sandbox); err != nil {
		return network.Slot{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.taken[sandbox]; ok {
		return network.Slot{}, fmt.Errorf("network of %s: %w", sandbox, errs.ErrAlreadyExists)
	}
	used := map[int]bool{}
	for _, t := range f.taken {
		used[t.Slot.Index] = true
	}
	for n := range f.Slots {
		if used[n] {
			continue
		}
		s := network.Slot{Index: n, NetNS: fmt.Sprintf("/nowhere/%d", n), TAP: network.TAPName,
			HostAddr: netip.AddrFrom4([4]byte{198, 18, byte(n >> 7), byte(2*n + 1)})}
		if f.taken == nil {
			f.taken = map[string]Taken{}
		}
		f.taken[sandbox] = Taken{s, policy, uid(n)}
		return s, nil
	}
	return network.Slot{}, fmt.Errorf("all %d network slots are taken: %w", f.Slots, errs.ErrResourceExhausted)
}

// Dial implements network.Driver.
func (f *Fake) Dial(ctx context.Context, sandbox string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, errs.Field("port", fmt.Sprintf("%d is out of range", port), "give 1 to 65535")
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := f.fail("dial", sandbox); err != nil {
		return nil, err
	}
	if _, ok := f.Taken()[sandbox]; !ok {
		return nil, fmt.Errorf("network of %s: %w", sandbox, errs.ErrNotFound)
	}
	if f.Guest != nil {
		if conn, err := f.Guest(ctx, sandbox, port); conn != nil || err != nil {
			return conn, err
		}
	}
	<-ctx.Done()
	return nil, fmt.Errorf("%w: no answer: %w", errs.ErrUnavailable, context.Cause(ctx))
}

// Release implements network.Driver.
func (f *Fake) Release(_ context.Context, sandbox string) error {
	if _, err := id.Parse(sandbox); err != nil {
		return err
	}
	if err := f.fail("release", sandbox); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.taken, sandbox)
	return nil
}

// List implements network.Driver.
func (f *Fake) List(context.Context) ([]string, error) {
	if err := f.fail("list", ""); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(f.Taken())), nil
}

// Close implements network.Driver.
func (f *Fake) Close(context.Context) error { return f.fail("close", "") }

// Usage implements network.Meter: a guest has received two bytes and sent one.
func (f *Fake) Usage(_ context.Context, sandbox string) (network.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.taken[sandbox]; !ok {
		return network.Usage{}, fmt.Errorf("network of %s: %w", sandbox, errs.ErrNotFound)
	}
	return network.Usage{ReceivedBytes: 2, SentBytes: 1}, nil
}
