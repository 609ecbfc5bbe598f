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
	var failed []error
	for _, clone := range resp.Msg.GetClones() {
		if clone.GetSandbox() == nil {
			failed = append(failed, errors.New(clone.GetError()))
			continue
		}
		fmt.Fprintln(s.out, clone.GetSandbox().GetId())
	}
	progressOf(cmd, s).phases(fmt.Sprintf("%d forked", len(resp.Msg.GetClones())-len(failed)), began, resp.Msg.GetPhases())
	return errors.Join(failed...)
}

func remoteRemove(cmd *cobra.Command, args []string, s streams, c *client.Client) error {
	return each(args, s, func(id string) error {
		_, err := c.Sandboxes.Destroy(cmd.Context(), connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: "wrenn rm"}))
		return err
	})
}

// each does something with every name, prints those that it was done with, and joins the errors of the others.
func each(names []string, s streams, do func(string) error) error {
	var failed []error
	for _, name := range names {
		if err := do(name); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(s.out, name)
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
	return each(args, s, func(name string) error {
		_, err := c.Snapshots.DeleteSnapshot(cmd.Context(), connect.NewRequest(&pb.DeleteSnapshotRequest{Name: name}))
		return err
	})
}
