package hostagent

import (
	"time"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Status is what the agent is doing.
type Status struct {
	Started      time.Time
	States       map[sandbox.State]int
	Operations   int // under way
	Adopting     int // sandboxes that are still to be taken over
	Used, Limits quota.Amount
	LastEvent    uint64
}

// Status returns it.
func (a *Agent) Status() Status {
	return Status{Started: a.started, States: a.States(), Operations: int(a.running.Load()), Adopting: int(a.adopting.Load()),
		Used: a.ledger.Used(), Limits: a.ledger.Limits(), LastEvent: a.events.Last()}
}

// Logs returns the end of what a sandbox's machine has written: the VMM's log and the guest's console, at most limit bytes of each, made
// fit to be shown. Of a machine that ended by itself while this agent watched, they are as they were then; of one that has none, empty.
func (a *Agent) Logs(id string, limit int) (vmm, console string, err error) {
	b, err := a.box(id)
	if err != nil {
		return "", "", err
	}
	if sb := b.held(); sb != nil {
		vmm, console = sb.Machine.ConsoleTail(limit)
		return vmm, console, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.words.vmm[max(0, len(b.words.vmm)-limit):], b.words.console[max(0, len(b.words.console)-limit):], nil
}
