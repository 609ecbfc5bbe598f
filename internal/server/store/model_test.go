package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

// model is what a sandbox's row must be after each step.
type model struct {
	row    store.Sandbox
	op     string
	states []string // as events tell them
}

func (m *model) become(state, op string) {
	if m.row.State != state {
		m.states = append(m.states, state)
	}
	m.row.State, m.op = state, op
}

// TestTheStateMachine does anything in any order, with operations that answer late, twice or never, and readers who act on what was once so.
func TestTheStateMachine(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		ops, reads := []string{"op 0"}, []store.Sandbox{}
		sb := w.starting("op 0")
		m := &model{row: sb, op: "op 0", states: []string{store.Starting}}
		changes := map[string]store.Change{"pause": store.Pause, "resume": store.Resume, "stop": store.Stop}
		steps := map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				c := changes[rapid.SampledFrom([]string{"pause", "resume", "stop"}).Draw(t, "change")]
				op := fmt.Sprint("op ", len(ops))
				ops = append(ops, op)
				_, err := w.Begin(ctx, w.team, sb.ID, c, "r", op, time.Hour)
				if !slices.Contains(c.From, m.row.State) {
					if !errors.Is(err, errs.ErrFailedPrecondition) {
						t.Fatalf("begin %s from %s: %v", c.Via, m.row.State, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				m.become(c.Via, op)
			},
			"finish": func(t *rapid.T) {
				op := rapid.SampledFrom(ops).Draw(t, "op")
				to := rapid.SampledFrom([]string{store.Running, store.Paused, store.Stopped, store.Failed}).Draw(t, "to")
				_, err := w.Finish(ctx, sb.ID, op, to, "r")
				if op != m.op {
					if !errors.Is(err, store.ErrOvertaken) {
						t.Fatalf("finish %q, which has it not: %v", op, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				m.become(to, "")
			},
			"read": func(*rapid.T) { reads = append(reads, m.row) },
			"observe": func(t *rapid.T) {
				if len(reads) == 0 {
					return
				}
				read := rapid.SampledFrom(reads).Draw(t, "read")
				is := rapid.SampledFrom([]string{store.Running, store.Paused, store.Stopped, store.Failed, store.Lost}).Draw(t, "is")
				changed, err := w.Observe(ctx, read, is, "r")
				may := read.Version == m.row.Version && !store.Ended(m.row.State) && (m.op == "" || store.Ended(is))
				if err != nil || changed != may {
					t.Fatalf("observe %s of version %d in %s, which has %d: %v, want %v: %v", is, read.Version, m.row.State, m.row.Version, changed, may, err)
				}
				if may {
					m.become(is, "")
				}
			},
		}
		steps[""] = func(t *rapid.T) { // holds after each step
			row, err := w.Get(ctx, w.team, sb.ID)
			if err != nil {
				t.Fatal(err)
			}
			op := ""
			if row.Op != nil {
				op = *row.Op
			}
			if row.State != m.row.State || op != m.op {
				t.Fatalf("it is %s with %q, want %s with %q", row.State, op, m.row.State, m.op)
			}
			if row.Version < m.row.Version {
				t.Fatalf("version %d came after %d", row.Version, m.row.Version)
			}
			m.row = row
		}
		t.Repeat(steps)
		if got := w.events(sb.ID); !slices.Equal(got, m.states) {
			t.Fatalf("events %v, want %v", got, m.states)
		}
	})
}
