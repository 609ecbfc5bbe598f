package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// eventView is a change of state of a sandbox, or the word that events before it are missing.
type eventView struct {
	ID      string    `json:"id"`
	Sandbox string    `json:"sandbox,omitempty"`
	State   string    `json:"state,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	Gap     bool      `json:"gap,omitempty"`
}

// eventQuery chooses events.
type eventQuery struct {
	past, end   bool   // from the oldest there is; to the last there is now
	after, only string // after this event; of this sandbox
}

// eventFlags are what `wrenn events` takes.
type eventFlags struct {
	eventQuery
	asJSON bool
}

func newEvents(s streams) *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events [ID]",
		Short: "Tell of every change of state of sandboxes, with its reason, as it happens",
		Long: `Events tells of changes of state as they happen, until Ctrl-C: of all sandboxes, or of one. --after takes what an event begins with, to
go on where another call ended. An agent numbers its events, also beyond its own restart, and keeps the last 16384 of its own time; where some are
missing, it says so. A server keeps them in its database, under names of its own.

With --json, each event is one line. It needs an agent or a server.`,
		Example: `  wrenn events
  wrenn events --past --no-follow cl-0123456789abcdefghij
  wrenn events --json | jq -r 'select(.state == "failed") | "\(.sandbox): \(.reason)"'`,
		Args: usage(cobra.MaximumNArgs(1), giveID+", or none for all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, err := id.Parse(args[0]); err != nil {
					return err
				}
				f.only = args[0]
			}
			if f.past && f.after != "" {
				return errs.Field("--past", "--after is given as well", "give one of them")
			}
			err := withRemote(cmd, func(ctx context.Context, r remote) error {
				for v, err := range r.events(ctx, f.eventQuery) {
					if err != nil {
						return err
					}
					if err := f.print(s.out, v); err != nil {
						return err
					}
				}
				return nil
			})
			if errors.Is(err, errInterrupted) {
				return nil // that is how it ends
			}
			return err
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.asJSON, "json", false, "print JSON, one event a line")
	fl.BoolVar(&f.past, "past", false, "begin with the oldest that there is")
	fl.BoolVar(&f.end, "no-follow", false, "end with the last that there is now")
	fl.StringVar(&f.after, "after", "", "begin after this event")
	return cmd
}

func (f *eventFlags) print(w io.Writer, v eventView) error {
	var err error
	switch {
	case f.asJSON:
		err = printJSON(w, v)
	case v.Gap:
		_, err = fmt.Fprintf(w, "%s  events before this one are missing\n", v.ID)
	default:
		_, err = fmt.Fprintf(w, "%s  %s  %s  %s: %s\n", v.ID, clock(v.Time), v.Sandbox, v.State, v.Reason)
	}
	return err
}
