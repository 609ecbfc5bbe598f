package control

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Hosts are the machines that run sandboxes; internal/server/hosts has those of an installation.
type Hosts interface {
	// Agent is who speaks to a host's agent. ErrUnavailable when the host is lost or can't be reached from here.
	Agent(ctx context.Context, host string) (*client.Client, error)
	// Reachable are the hosts that can be asked from here, and whether each is new or back: then all that it has is looked at.
	Reachable(ctx context.Context) (map[string]bool, error)
	// Draining says whether a host gets no new sandboxes.
	Draining(ctx context.Context, host string) (bool, error)
	// Ready is an ErrUnavailable when no host is up.
	Ready(ctx context.Context) error
}

// Host is one machine alone, always there.
type Host struct {
	ID string
	*client.Client
}

var _ Hosts = Host{}

// Agent implements Hosts.
func (h Host) Agent(_ context.Context, host string) (*client.Client, error) {
	if host != h.ID {
		return nil, fmt.Errorf("host %q is not known here: %w", host, errs.ErrUnavailable)
	}
	return h.Client, nil
}

// Reachable implements Hosts.
func (h Host) Reachable(context.Context) (map[string]bool, error) {
	return map[string]bool{h.ID: false}, nil
}

// Draining implements Hosts.
func (h Host) Draining(context.Context, string) (bool, error) { return false, nil }

// Ready implements Hosts.
func (h Host) Ready(ctx context.Context) error {
	_, err := h.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
	return err
}
