package hostagent

import (
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// stored is who holds, in the ledger, what snapshots and warm builds take.
const stored = "snapshots and warm builds"

// promise is what a sandbox of such sizes may take. Its memory is on the disk when it is paused: room for that is held from the start, so
// that no pause is refused.
func promise(vcpus, memoryMiB int, diskBytes int64) quota.Amount {
	return quota.Amount{Sandboxes: 1, VCPUs: vcpus, MemoryMiB: int64(memoryMiB), DiskBytes: buildBytes(memoryMiB, diskBytes)}
}

// buildBytes is what a build of a machine of such sizes takes at most.
func buildBytes(memoryMiB int, diskBytes int64) int64 { return int64(memoryMiB)<<20 + diskBytes }

// amountOf is what a sandbox takes in the state that it is in.
func amountOf(r sandbox.Record) quota.Amount {
	full := promise(r.Parts.VCPUs, r.Parts.MemoryMiB, r.Parts.DiskBytes)
	switch r.State {
	case sandbox.Paused:
		return full.Asleep()
	case sandbox.Failed, sandbox.Lost, sandbox.Stopped, sandbox.Unreadable:
		return quota.Amount{}
	}
	return full
}

// room takes the spec's sizes from what the host has, and with them what the template's warm build will take if there is none yet; the
// caller calls done when its start has come to an end. The machine that a warm build is made with takes nothing more: it has the same
// sizes, and is gone before the sandbox's starts.
//
// Preconditions: the manager has checked the spec, and filled them.
func (a *Agent) room(spec *sandbox.Spec) (done func(), err error) {
	if err := a.ledger.Reserve(spec.ID, promise(spec.VCPUs, spec.MemoryMiB, spec.DiskBytes)); err != nil {
		return nil, err
	}
	if !a.m.MakesWarm(*spec) {
		return func() {}, nil
	}
	holder := "warm build of " + spec.Template
	if err := a.ledger.Reserve(holder, quota.Amount{DiskBytes: buildBytes(spec.MemoryMiB, spec.DiskBytes)}); err != nil {
		a.ledger.Set(spec.ID, quota.Amount{})
		return nil, err
	}
	return func() {
		a.countStored()
		a.ledger.Set(holder, quota.Amount{})
	}, nil
}

// countStored has the ledger hold what snapshots and warm builds take now, whatever the limits.
func (a *Agent) countStored() {
	n, err := a.m.StoredBytes()
	if err != nil {
		a.log.Error("the builds can't be counted", "error", err)
		return
	}
	a.ledger.Set(stored, quota.Amount{DiskBytes: n})
}
