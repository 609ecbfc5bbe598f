// Package network is the domain of a sandbox's network: a slot with a namespace of its own, the same guest address in every
// slot, and a policy that is in force before the guest's first instruction.
//
// # Life of a slot
//
//	s, err := driver.Acquire(ctx, id, policy)  // namespace, veth, TAP, policy: all there
//	…                                          // the VMM runs in s.NetNS on s.TAP
//	conn, err := driver.Dial(ctx, id, 49983)   // the host reaches a port of the guest
//	err = driver.Release(ctx, id)              // all gone, the slot is free
//
// The guest's address, gateway and hardware address are constants, so that a memory snapshot fits every slot.
//
// network/linux implements the interface with netlink and nftables; network/networktest is the suite that every
// implementation passes.
package network

import (
	"context"
	"net"
	"net/netip"
)

// What the guest sees, the same in every slot. They are link-local addresses, which no outside network routes, so they
// collide with nothing that a guest may want to reach.
const (
	// GuestMAC is the hardware address of the guest's interface.
	GuestMAC = "02:77:72:65:6e:01"
	// GatewayMAC is the hardware address of the TAP device, the guest's only neighbour.
	GatewayMAC = "02:77:72:65:6e:02"
	// TAPName is the name of the TAP device inside the namespace.
	TAPName = "tap0"
	// PrefixBits is the size of the network that guest and gateway share.
	PrefixBits = 30
)

// GuestIP is the guest's address and Gateway its only neighbour, the TAP device.
var (
	GuestIP = netip.MustParseAddr("169.254.0.21")
	Gateway = netip.MustParseAddr("169.254.0.22")
)

// Policy says what the guest may reach. The zero value reaches nothing.
type Policy struct {
	// Internet allows the public internet: every address that is not private, link-local, CGNAT, multicast, reserved, a
	// cloud's metadata service, the host's own, or another sandbox's. IPv6 is closed in every policy.
	Internet bool
}

// Slot is a sandbox's place on the host's network.
type Slot struct {
	// Index is the slot's number, unique among all sandboxes of the host.
	Index int
	// NetNS is the path of the network namespace.
	NetNS string
	// TAP is the name of the TAP device in it.
	TAP string
	// HostAddr is the address that the guest's traffic leaves the namespace with.
	HostAddr netip.Addr
}

// Driver gives out slots. Its methods may be called from several goroutines and several processes, at most one at a time
// for one id.
type Driver interface {
	// Acquire takes a free slot for the sandbox and builds its network; uid is asked for the owner of the TAP device once the
	// slot is known. The policy is in force when it returns, and an error in applying it fails the whole. When it fails it has
	// removed what it made. Errors: ErrInvalid when id is no sandbox id, ErrAlreadyExists when it has a slot,
	// ErrResourceExhausted when none is free.
	Acquire(ctx context.Context, id string, policy Policy, uid func(slot int) int) (Slot, error)
	// Dial connects to a TCP port of the guest. A port that nothing listens on fails at once; a guest that is not up yet is
	// waited for until ctx ends, but the kernel repeats an unanswered attempt only after a second: whoever waits for a guest
	// to boot gives each of several calls a short time. Errors: ErrNotFound when the id has no slot, ErrUnavailable when the
	// guest refuses (then also syscall.ECONNREFUSED) or does not answer (then also ctx's cause).
	Dial(ctx context.Context, id string, port int) (net.Conn, error)
	// Release removes the sandbox's network, whole or half made, and frees the slot. It is idempotent.
	Release(ctx context.Context, id string) error
	// List returns the ids that have a slot or any object of this driver.
	List(ctx context.Context) ([]string, error)
	// Close removes what serves all slots (the host's table) if no slot is taken.
	Close(ctx context.Context) error
}

// Meter is a Driver that tells what went through a slot. It is an optional capability, found by type assertion.
type Meter interface {
	Driver
	// Usage tells what the guest has exchanged with the outside since it was given the slot. What the host says to it on its own account, by Dial, is
	// not in it. Errors: ErrNotFound when the id has no slot.
	Usage(ctx context.Context, id string) (Usage, error)
}

// Usage is what went through a slot, in bytes of frames with their headers.
type Usage struct {
	ReceivedBytes, SentBytes uint64 // as the guest sees it
}

// Readier is a Driver that keeps slots ready, which makes Acquire faster. It is an optional capability, found by type assertion.
type Readier interface {
	Driver
	// KeepReady builds slots for sandboxes to come, in the background, until want of them are ready, and others when those are taken. A ready
	// slot lets nothing pass; Acquire puts the policy in force. They count among all slots, and give way when there is no other free.
	// Failures to build one are reported, and it is tried again. One process of a host keeps slots ready: ErrUnavailable when another
	// does. What one that was killed has left, the next one removes, and Close.
	KeepReady(ctx context.Context, want int, uid func(slot int) int, report func(error)) error
	// StopReady removes the ready slots and builds no others.
	StopReady(ctx context.Context) error
	// Ready says how many there are.
	Ready() Readiness
}

// Readiness is what there is of ready slots.
type Readiness struct {
	Ready, Want  int
	Hits, Misses uint64 // starts that found one ready, and that did not
}
