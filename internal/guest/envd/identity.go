package envd

import (
	"context"
	"fmt"

	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

// Identity is what makes this guest one sandbox and no other.
type Identity struct {
	// Token is what calls must show. Empty while the host has not given one.
	Token                 string
	SandboxID, TemplateID string
	Hostname              string
	// Start is another one after each start of the machine from frozen state.
	Start string
}

// env is what every process is told. The token isn't.
func (id *Identity) env() map[string]string {
	return map[string]string{
		mmds.KeySandboxID: id.SandboxID, mmds.KeyTemplateID: id.TemplateID,
		"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": id.SandboxID, "E2B_TEMPLATE_ID": id.TemplateID,
	}
}

// Source is where the identity comes from.
type Source interface {
	// Identity returns the identity as it is now, and tries until there is one; the token may come later than the rest. It fails only
	// when ctx ends.
	Identity(ctx context.Context) (Identity, error)
}

// FromMMDS is the host's metadata service as the source. The host takes the token out of the metadata once envd answers with it,
// so an envd that is started after that never gets it, and refuses every call.
func FromMMDS(client *mmds.Client) Source { return metadata{client} }

type metadata struct{ client *mmds.Client }

// Identity implements Source.
func (m metadata) Identity(ctx context.Context) (Identity, error) {
	doc, err := m.client.Fetch(ctx)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Token: doc.EnvdToken, SandboxID: doc.SandboxID, TemplateID: doc.TemplateID, Hostname: doc.Hostname,
		Start: doc.Start}, nil
}

// Machine makes the machine distinct when it turns out to be a clone. *clone.Machine is one, and has the contract of both methods.
type Machine interface {
	Freeze() error
	Distinguish(ctx context.Context, id clone.Identity) (clone.Report, error)
}

// fixed is a machine that can't be frozen.
type fixed struct{ reason error }

// Freeze refuses, with the reason.
func (f fixed) Freeze() error {
	return fmt.Errorf("this machine can't be frozen: %w", f.reason)
}

// Distinguish refuses, with the reason.
func (f fixed) Distinguish(context.Context, clone.Identity) (clone.Report, error) {
	return clone.Report{}, fmt.Errorf("this machine can't be made distinct: %w", f.reason)
}
