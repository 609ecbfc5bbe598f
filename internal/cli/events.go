package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/id"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// eventView is a change of state of a sandbox, or the word that events before it are missing.
type eventView struct {
	ID      uint64    `json:"id"`
	Sandbox string    `json:"sandbox,omitempty"`
	State   string    `json:"state,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	Gap     bool      `json:"gap,omitempty"`
}

// eventFlags are what `wrenn events` takes.
type eventFlags struct {
	asJSON, past, end bool
	after             uint64
	only              string
}

func newEvents(s streams) *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events [ID]",
		Short: "Tell of every change of state of sandboxes, with its reason, as it happens",
		Long: `Events tells of changes of state as they happen, until Ctrl-C: of all sandboxes, or of one. The number that each begins with goes on
rising when the agent is restarted; --after takes it, to go on where another call ended. The agent keeps the last 16384 events of
its own time; where some are missing, it says so.

With --json, each event is one line. It needs an agent.`,
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
			if f.past && f.after > 0 {
				return errs.Field("--past", "--after is given as well", "give one of them")
			}
			err := withAgent(cmd, func(ctx context.Context, c *client.Client) error { return f.follow(ctx, s.out, c) })
			if errors.Is(err, errInterrupted) {
				return nil // that is how it ends
			}
			return err
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.asJSON, "json", false, "print JSON, one event a line")
	fl.BoolVar(&f.past, "past", false, "begin with the oldest that the agent has")
	fl.BoolVar(&f.end, "no-follow", false, "end with the last that there is now")
	fl.Uint64Var(&f.after, "after", 0, "begin after this event")
	return cmd
}

// follow prints events.
func (f *eventFlags) follow(ctx context.Context, w io.Writer, c *client.Client) error {
	status, err := c.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
	if err != nil {
		return err
	}
	req := &pb.EventsRequest{After: f.after}
	if f.past {
		req.After = 1 // before all: the agent says so, and begins with what it has
	}
	stream, err := c.Host.Events(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		msg := stream.Msg()
		if err := f.print(w, msg); err != nil {
			return err
		}
		// All sandboxes' events are asked for, so that the last one there is is seen to come.
		if f.end && msg.GetGap() == nil && msg.GetId() >= status.Msg.GetLastEvent() {
			return nil
		}
	}
	return stream.Err()
}

func (f *eventFlags) print(w io.Writer, msg *pb.EventsResponse) error {
	v := eventView{ID: msg.GetId()}
	switch {
	case msg.GetStateChanged() != nil:
		if f.only != "" && msg.GetStateChanged().GetSandbox() != f.only {
			return nil
		}
		change := viewChange(msg.GetStateChanged().GetChange())
		v.Sandbox, v.State, v.Time, v.Reason = msg.GetStateChanged().GetSandbox(), change.State, change.Time, change.Reason
	case msg.GetGap() != nil && !f.past:
		v.Gap = true
	default:
		return nil
	}
	var err error
	switch {
	case f.asJSON:
		err = printJSON(w, v)
	case v.Gap:
		_, err = fmt.Fprintf(w, "%d  events before this one are missing\n", v.ID)
	default:
		_, err = fmt.Fprintf(w, "%d  %s  %s  %s: %s\n", v.ID, clock(v.Time), v.Sandbox, v.State, v.Reason)
	}
	return err
}
