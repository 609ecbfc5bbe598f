package hostagent

import (
	"context"
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
	Stored       int64 // the part of Used's disk that snapshots and warm builds take, in bytes
	LastEvent    uint64
}

// Status returns it.
func (a *Agent) Status() Status {
	return Status{Started: a.started, States: a.States(), Operations: int(a.running.Load()), Adopting: int(a.adopting.Load()),
		Used: a.ledger.Used(), Limits: a.ledger.Limits(), Stored: a.ledger.Held(stored).DiskBytes, LastEvent: a.events.Last()}
}

// Logs returns the end of what a sandbox's machine has written, at most limit bytes of each. Of a machine that ended by itself while an
// agent watched, they are as they were then; of one that has none, empty.
func (a *Agent) Logs(ctx context.Context, id string, limit int) (sandbox.Logs, error) {
	b, err := a.box(id)
	if err != nil {
		return sandbox.Logs{}, err
	}
	if sb := b.held(); sb != nil {
		var l sandbox.Logs
		l.VMM, l.Console = sb.Machine.ConsoleTail(limit)
		return l, nil
	}
	l, err := a.m.KeptLogs(ctx, id)
	return l.Tail(limit), err
}
