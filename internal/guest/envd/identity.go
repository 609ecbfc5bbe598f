package envd

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/guest/mmds"
)

// Identity is what makes this guest one sandbox and no other.
type Identity struct {
	// Token is what every call but /health must show. It is kept in memory only.
	Token                 string
	SandboxID, TemplateID string
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
	// Identity returns the identity, with a token, as soon as there is one. It fails only when ctx ends.
	Identity(ctx context.Context) (Identity, error)
}

// FromMMDS is the host's metadata service as the source. The host takes the token out of the metadata once envd answers with it,
// so an envd that is started after that never gets it, and refuses every call.
func FromMMDS(client *mmds.Client) Source { return metadata{client} }

type metadata struct{ client *mmds.Client }

// tokenPause is how long to wait before looking again for a token that is not there.
const tokenPause = 50 * time.Millisecond

func (m metadata) Identity(ctx context.Context) (Identity, error) {
	for {
		doc, err := m.client.Fetch(ctx)
		if err != nil {
			return Identity{}, err
		}
		if doc.EnvdToken != "" {
			return Identity{Token: doc.EnvdToken, SandboxID: doc.SandboxID, TemplateID: doc.TemplateID}, nil
		}
		select {
		case <-ctx.Done():
			return Identity{}, context.Cause(ctx)
		case <-time.After(tokenPause):
		}
	}
}
