package cli

import (
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func remotePause(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	began := time.Now()
	resp, err := c.Sandboxes.Pause(cmd.Context(), connect.NewRequest(&pb.PauseRequest{Id: args[0], Reason: "wrenn pause"}))
	if err != nil {
		return err
	}
	progressOf(cmd, s).phases("paused", began, resp.Msg.GetPhases())
	return nil
}

func remoteResume(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	began := time.Now()
	resp, err := c.Sandboxes.Resume(cmd.Context(), connect.NewRequest(&pb.ResumeRequest{Id: args[0]}))
	if err != nil {
		return err
	}
	progressOf(cmd, s).phases("resumed", began, resp.Msg.GetPhases())
	return nil
}

// maxForks is how many clones one fork makes: the proto's bound.
const maxForks = 100

func remoteFork(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	count, err := cmd.Flags().GetInt("count")
	if err != nil {
		return err
	}
	if count < 1 || count > maxForks {
		return errs.Field("--count", fmt.Sprintf("%d is out of range", count), fmt.Sprintf("give 1 to %d", maxForks))
	}
	began := time.Now()
	resp, err := c.Sandboxes.Fork(cmd.Context(), connect.NewRequest(&pb.ForkRequest{Id: args[0], Count: uint32(count)}))
	if err != nil {
		return err
	}
	var list []outcomeView
	forked := 0
	for _, clone := range resp.Msg.GetClones() {
		if clone.GetSandbox() == nil {
			list = append(list, outcomeView{err: errors.New(clone.GetError())})
			continue
		}
		forked++
		list = append(list, outcomeView{Name: clone.GetSandbox().GetId()})
	}
	progressOf(cmd, s).phases(fmt.Sprintf("%d forked", forked), began, resp.Msg.GetPhases())
	asJSON, _ := cmd.Flags().GetBool("json")
	return printOutcomes(s, asJSON, list)
}

func remoteRemove(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	return each(cmd, args, s, func(id string) error {
		_, err := c.Sandboxes.Destroy(cmd.Context(), connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: "wrenn rm"}))
		return err
	})
}

// outcomeView is what became of one of several things that a command was to do something with.
type outcomeView struct {
	Name  string `json:"name,omitempty"`  // an id, or a snapshot's name; empty for a clone that there is none of
	Error string `json:"error,omitempty"` // why it failed
	err   error
}

// each does something with every name and prints what became of it. Its error joins those of all.
func each(cmd *cobra.Command, names []string, s streams, do func(string) error) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	var list []outcomeView
	for _, name := range names {
		list = append(list, outcomeView{Name: name, err: do(name)})
	}
	return printOutcomes(s, asJSON, list)
}

// printOutcomes prints the names of what was done, or everything as JSON. Its error joins those of what was not done.
func printOutcomes(s streams, asJSON bool, list []outcomeView) error {
	var failed []error
	for i, o := range list {
		switch {
		case o.err != nil:
			failed = append(failed, o.err)
			list[i].Error = o.err.Error()
		case !asJSON:
			fmt.Fprintln(s.out, o.Name)
		}
	}
	if asJSON {
		failed = append(failed, printJSON(s.out, list))
	}
	return errors.Join(failed...)
}

func remoteSnapshotCreate(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	began := time.Now()
	resp, err := c.Snapshots.CreateSnapshot(cmd.Context(), connect.NewRequest(&pb.CreateSnapshotRequest{Id: args[0], Name: args[1]}))
	if err != nil {
		return err
	}
	progressOf(cmd, s).phases("frozen as "+args[1], began, resp.Msg.GetPhases())
	return nil
}

func remoteSnapshotRemove(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	return each(cmd, args, s, func(name string) error {
		_, err := c.Snapshots.DeleteSnapshot(cmd.Context(), connect.NewRequest(&pb.DeleteSnapshotRequest{Name: name}))
		return err
	})
}
