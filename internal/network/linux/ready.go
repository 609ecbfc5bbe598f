package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

// ready is who has the slots that are built and nobody's yet: the target of their link, and the owner in their namespace's label.
const ready = "ready"

// readyLock is the file that the process which keeps slots ready has locked. Without it, ready slots are left by one that was killed.
const readyLock = "slots.ready"

const (
	// settle is how long after a slot was taken others are built: a start is not held up by what makes the next one faster.
	settle = time.Second
	// retryBuild is how long after a failure.
	retryBuild = 10 * time.Second
)

// The steps of giving a ready slot to a sandbox.
var (
	pointGiven = failpoint.New("network.given")       // the link says whose it is
	pointNamed = failpoint.New("network.given-named") // so does the namespace
	pointRuled = failpoint.New("network.given-rules") // its policy is in force in the namespace
	pointFree  = failpoint.New("network.given-open")  // and on the host
)

// ReadyFailpoints are the names of these steps, in order.
func ReadyFailpoints() []string {
	return failpoint.Names(pointGiven, pointNamed, pointRuled, pointFree)
}

// pool keeps slots ready: all of their network is there, no packet passes, and what is left to do is to say whose it is and what the
// guest may reach. The host's own addresses at that moment go into the policy, so that is never made in advance.
type pool struct {
	d      *Driver
	want   int
	uid    func(slot int) int
	report func(error)
	lock   *os.File
	stop   context.CancelFunc
	done   chan struct{}
	poke   chan struct{} // a slot was taken

	building sync.Mutex // held while one is built

	mu           sync.Mutex
	slots        []int // built, and nobody's
	hits, misses uint64
}

// KeepReady implements network.Readier.
func (d *Driver) KeepReady(ctx context.Context, want int, uid func(slot int) int, report func(error)) error {
	lock, err := d.lockReady()
	if err != nil {
		return err
	}
	if err := d.sweepReady(ctx); err != nil {
		return errors.Join(err, lock.Close())
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &pool{d: d, want: want, uid: uid, report: report, lock: lock, stop: stop, done: make(chan struct{}), poke: make(chan struct{}, 1)}
	d.pool.Store(p)
	go p.run(life)
	return nil
}

// StopReady implements network.Readier.
func (d *Driver) StopReady(ctx context.Context) error {
	p := d.pool.Swap(nil)
	if p == nil {
		return nil
	}
	p.stop()
	<-p.done
	return errors.Join(d.sweepReady(ctx), p.lock.Close())
}

// Ready implements network.Readier.
func (d *Driver) Ready() network.Readiness {
	p := d.pool.Load()
	if p == nil {
		return network.Readiness{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return network.Readiness{Ready: len(p.slots), Want: p.want, Hits: p.hits, Misses: p.misses}
}

// lockReady makes this process the one that keeps slots ready. ErrUnavailable when another one does.
func (d *Driver) lockReady() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(d.stateDir, readyLock), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process keeps network slots ready: %w: %w", err, errs.ErrUnavailable)
	}
	return f, nil
}

// run builds slots until ctx ends.
func (p *pool) run(ctx context.Context) {
	defer close(p.done)
	for {
		var again <-chan time.Time
		for p.short() && ctx.Err() == nil {
			if err := p.build(ctx); err != nil {
				if !errors.Is(err, errs.ErrResourceExhausted) && ctx.Err() == nil {
					p.report(fmt.Errorf("keep a network slot ready: %w", err))
				}
				again = time.After(retryBuild)
				break
			}
		}
		select {
		case <-p.poke:
			again = time.After(settle)
		case <-again:
			continue
		case <-ctx.Done():
			return
		}
		select {
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

func (p *pool) short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.slots) < p.want
}

// build makes one more.
func (p *pool) build(ctx context.Context) (err error) {
	p.building.Lock()
	defer p.building.Unlock()
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	slot, err := p.d.reserve(ctx, ready, cu)
	if err != nil {
		return err
	}
	if err := p.d.furnish(ctx, slot, network.Policy{}, p.uid(slot)); err != nil {
		return fmt.Errorf("slot %d: %w", slot, err)
	}
	cu.Release()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots = append(p.slots, slot)
	return nil
}

// take returns one that is ready.
func (p *pool) take() (slot int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.slots) == 0 {
		return 0, false
	}
	slot, p.slots = p.slots[0], p.slots[1:]
	select {
	case p.poke <- struct{}{}:
	default:
	}
	return slot, true
}

// count counts a start that found a slot ready, or did not.
func (p *pool) count(hit bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hit {
		p.hits++
	} else {
		p.misses++
	}
}

// fromPool gives the sandbox a slot that is ready, with the policy in force. ok is false when there is none.
func (d *Driver) fromPool(ctx context.Context, sandbox string, policy network.Policy, uid func(slot int) int, cu *cleanup.Stack) (slot int, ok bool, err error) {
	p := d.pool.Load()
	if p == nil {
		return 0, false, nil
	}
	for {
		if slot, ok = p.take(); !ok {
			p.count(false)
			return 0, false, nil
		}
		if want, made := uid(slot), p.uid(slot); want != made {
			return 0, false, fmt.Errorf("ready slot %d was built for user %d and not %d: %w", slot, made, want, errs.ErrFailedPrecondition)
		}
		given, err := d.give(ctx, slot, sandbox, cu)
		if err != nil {
			return 0, false, err
		}
		if given {
			p.count(true)
			return slot, true, d.openTo(ctx, slot, policy)
		}
	}
}

// give makes a ready slot the sandbox's. It is false when the slot is not there any more.
func (d *Driver) give(ctx context.Context, slot int, sandbox string, cu *cleanup.Stack) (bool, error) {
	unlock, err := lockHost()
	if err != nil {
		return false, err
	}
	defer unlock()
	taken, err := d.slots.all()
	if err != nil || taken[slot] != ready {
		return false, err
	}
	for other, owner := range taken {
		if owner == sandbox {
			return false, errors.Join(fmt.Errorf("slot %d: %w", other, errs.ErrAlreadyExists), d.removeReady(ctx, slot))
		}
	}
	if err := prepareHost(ctx); err != nil {
		return false, errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return d.removeReady(ctx, slot) }))
	}
	if err := d.slots.hand(slot, sandbox); err != nil {
		return false, err
	}
	cu.Add("release", func(ctx context.Context) error { return d.Release(ctx, sandbox) })
	if err := step(ctx, pointGiven); err != nil {
		return false, err
	}
	if err := relabel(netnsPath(slot), label(sandbox, d.stateDir)); err != nil {
		return false, err
	}
	return true, step(ctx, pointNamed)
}

// openTo puts the policy in force for a slot that nothing passes so far.
func (d *Driver) openTo(ctx context.Context, slot int, policy network.Policy) error {
	addrs, err := hostAddrs()
	if err != nil {
		return err
	}
	err = inside(netnsPath(slot), func(*os.File) error { return nft.Put(slotTable(policy, slot, addrs, d.maxConns), nil) })
	if err != nil {
		return err
	}
	if err := step(ctx, pointRuled); err != nil {
		return err
	}
	if policy.Internet {
		if err := nft.Include(hostTable(), setOpen, openElement(slot)); err != nil {
			return err
		}
	}
	return step(ctx, pointFree)
}

// sweepReady removes all slots that are ready. The caller has the lock of those who keep some.
func (d *Driver) sweepReady(ctx context.Context) error {
	unlock, err := lockHost()
	if err != nil {
		return err
	}
	defer unlock()
	return d.removeAllReady(ctx)
}

// removeAllReady is sweepReady of a caller that has the host's lock as well.
func (d *Driver) removeAllReady(ctx context.Context) error {
	if err := d.slots.tidy(); err != nil {
		return err
	}
	taken, err := d.slots.all()
	if err != nil {
		return err
	}
	orphans, err := d.orphans()
	if err != nil {
		return err
	}
	var list []int
	for _, slots := range []map[int]string{taken, orphans} {
		maps.DeleteFunc(slots, func(_ int, owner string) bool { return owner != ready })
		list = slices.AppendSeq(list, maps.Keys(slots))
	}
	if len(list) == 0 {
		return nil
	}
	return d.removeReady(ctx, list...)
}

// removeReady removes slots that are ready. The caller has the host's lock.
func (d *Driver) removeReady(ctx context.Context, list ...int) error {
	for _, slot := range list {
		if err := d.remove(ctx, slot, ready); err != nil {
			return fmt.Errorf("slot %d that was ready: %w", slot, err)
		}
	}
	if err := clearHost(ctx); err != nil {
		return err
	}
	for _, slot := range list {
		if err := d.slots.free(slot); err != nil {
			return err
		}
	}
	return nil
}

// sweepAbandoned removes ready slots that a process which was killed has left. The caller has the host's lock.
func (d *Driver) sweepAbandoned(ctx context.Context) error {
	lock, err := d.lockReady()
	if errors.Is(err, errs.ErrUnavailable) {
		return nil // they are somebody's
	}
	if err != nil {
		return err
	}
	return errors.Join(d.removeAllReady(ctx), lock.Close())
}
