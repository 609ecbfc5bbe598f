package assembly

import (
	"context"
	"os"

	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// envd speaks to a guest's envd by the client of it.
type envd struct{}

// Ready implements sandbox.Guest.
func (envd) Ready(ctx context.Context, dial sandbox.DialFunc, token string) error {
	c := client.New(client.DialFunc(dial), token)
	defer c.Close() // its connections would stay, when the guest is gone as well
	return c.WaitReady(ctx)
}

// Quiesce implements sandbox.Guest.
func (envd) Quiesce(ctx context.Context, dial sandbox.DialFunc, token string) error {
	c := client.New(client.DialFunc(dial), token)
	defer c.Close()
	return c.Quiesce(ctx)
}

// Awake implements sandbox.Guest.
func (envd) Awake(ctx context.Context, dial sandbox.DialFunc, token string) ([]vmm.Step, error) {
	c := client.New(client.DialFunc(dial), token)
	defer c.Close()
	awake, err := c.WaitAwake(ctx)
	if err != nil {
		return nil, err
	}
	steps := make([]vmm.Step, len(awake.Steps))
	for i, step := range awake.Steps {
		steps[i] = vmm.Step{Name: step.Name, Took: step.Took}
	}
	return steps, nil
}

// pagers are processes of this program.
type pagers struct{ process.Starter }

// newPagers has them run the program that asks for it.
func newPagers(stateDir string) (pagers, error) {
	self, err := os.Executable()
	if err != nil {
		return pagers{}, err
	}
	return pagers{process.Starter{StateDir: stateDir, Command: []string{self, process.Command}}}, nil
}

// Start implements sandbox.Pagers.
func (p pagers) Start(ctx context.Context, spec process.Spec) (sandbox.Pager, error) {
	started, err := p.Starter.Start(ctx, spec)
	if err != nil {
		return nil, err // an interface that holds no process would not be nil
	}
	return started, nil
}

// Recover implements sandbox.Pagers.
func (p pagers) Recover(ctx context.Context, id string, h process.Handle) (sandbox.Pager, error) {
	found, err := p.Starter.Recover(ctx, id, h)
	if err != nil {
		return nil, err
	}
	return found, nil
}
