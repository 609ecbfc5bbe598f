package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Templates are what sandboxes can be started from, by name: all that any host which is up has.
func (c *Control) Templates(ctx context.Context) ([]store.Template, error) {
	return c.store.Templates(ctx)
}

// Template is one of them. ErrNotFound, with those that there are, when there is none of the name.
func (c *Control) Template(ctx context.Context, name string) (store.Template, error) {
	list, err := c.Templates(ctx)
	if err != nil {
		return store.Template{}, err
	}
	var names []string
	for _, t := range list {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return store.Template{}, fmt.Errorf("template %.80q: %w; there are: %s", name, errs.ErrNotFound, strings.Join(names, ", "))
}

// DeleteTemplate removes a template from every host that is up. ErrFailedPrecondition, with some of them, when sandboxes, snapshots or other builds need
// it on one: that host knows, and keeps it. ErrNotFound when no host has it.
func (c *Control) DeleteTemplate(ctx context.Context, name string) error {
	_, err := perform(ctx, c, shortTime, func(ctx context.Context) (struct{}, error) {
		var none struct{}
		on, err := c.store.HostsOfTemplate(ctx, name)
		if err == nil && len(on) == 0 {
			_, err = c.Template(ctx, name) // the error tells of those that there are
		}
		if err != nil {
			return none, err
		}
		var failed []error
		for _, host := range on {
			failed = append(failed, c.deleteTemplateOn(ctx, host, name))
		}
		return none, errors.Join(failed...)
	})
	return err
}

func (c *Control) deleteTemplateOn(ctx context.Context, host, name string) error {
	agent, err := c.hosts.Agent(ctx, host)
	if err != nil {
		return err
	}
	_, err = agent.Host.DeleteTemplate(ctx, connect.NewRequest(&pb.DeleteTemplateRequest{Name: name}))
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	return c.store.ForgetTemplate(ctx, host, name)
}
