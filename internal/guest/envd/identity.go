package envd

import (
	"context"
	"fmt"

	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

// Source is where the sandbox's token and ids come from. *mmds.Client is one: the host's metadata service. The host takes the token
// out of the metadata once envd answers with it, so an envd that is started after that never gets it, and refuses every call.
type Source interface {
	// Fetch returns the document as it is now, and tries until there is one. It fails only when ctx ends.
	Fetch(ctx context.Context) (mmds.Document, error)
}

// Machine makes the machine distinct when it turns out to be a clone. *clone.Machine is one, and has the contract of both methods.
type Machine interface {
	Freeze() error
	Distinguish(ctx context.Context, id clone.Identity) (clone.Report, error)
}

// fixed is a machine that can't be frozen.
type fixed struct{ reason error }

func (f fixed) Freeze() error {
	return fmt.Errorf("this machine can't be frozen: %w", f.reason)
}

func (f fixed) Distinguish(context.Context, clone.Identity) (clone.Report, error) {
	return clone.Report{}, fmt.Errorf("this machine can't be made distinct: %w", f.reason)
}

// environment is what every process is told. The token isn't.
func environment(doc mmds.Document) map[string]string {
	return map[string]string{
		mmds.KeySandboxID: doc.SandboxID, mmds.KeyTemplateID: doc.TemplateID,
		"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": doc.SandboxID, "E2B_TEMPLATE_ID": doc.TemplateID,
	}
}
