package client

import (
	"context"
	"iter"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Scope is what a key is good for. Each stands for itself.
type Scope string

// The scopes.
const (
	ScopeRead     Scope = "read"     // sees
	ScopeWrite    Scope = "write"    // changes
	ScopeAdmin    Scope = "admin"    // makes and revokes the team's API keys, and reads its audit log
	ScopeOperator Scope = "operator" // looks after what belongs to no team
)

// Role is scopes under a name.
type Role string

// The roles.
const (
	RoleViewer    Role = "viewer"    // sees
	RoleDeveloper Role = "developer" // and changes
	RoleAdmin     Role = "admin"     // and makes keys
	RoleOperator  Role = "operator"  // and all else
)

// Key is what is known of an API key; the key itself is told once, by Create. Times that are zero have not come, or never will.
type Key struct {
	ID         string
	Name       string
	Prefix     string // how the key begins
	Scopes     []Scope
	Role       Role // that has these scopes; empty when none has
	Limits     Limits
	CreatedAt  time.Time
	ExpiresAt  time.Time
	RevokedAt  time.Time
	LastUsedAt time.Time // to the minute
}

func toKey(k rest.Key) *Key {
	made := &Key{ID: k.ID, Name: k.Name, Prefix: k.Prefix, Role: Role(or(k.Role, "")), Limits: toLimits(k.Limits), CreatedAt: k.CreatedAt, ExpiresAt: or(k.ExpiresAt, time.Time{}),
		RevokedAt: or(k.RevokedAt, time.Time{}), LastUsedAt: or(k.LastUsedAt, time.Time{})}
	for _, scope := range k.Scopes {
		made.Scopes = append(made.Scopes, Scope(scope))
	}
	return made
}

// Keys are the API keys of the key's team. They need ScopeAdmin.
type Keys struct{ c *Client }

// CreateKeyOptions say what a key is to be.
type CreateKeyOptions struct {
	Name      string
	Role      Role // or scopes
	Scopes    []Scope
	Limits    Limits    // within the team's
	ExpiresAt time.Time // from when on it is refused; zero is never
}

// Create makes a key and returns it: it is told this once, and nobody can ask for it again. For that reason the client does not ask twice: when
// the answer is lost, so is the key, which then is to be revoked.
func (k *Keys) Create(ctx context.Context, o CreateKeyOptions) (secret string, _ *Key, _ error) {
	resp, err := k.c.rest.CreateKey(ctx, o.rest())
	return toNewKey(decode[rest.NewKey](resp, err))
}

func (o CreateKeyOptions) rest() rest.CreateKey {
	body := rest.CreateKey{Name: o.Name, Limits: o.Limits.rest()}
	if len(o.Scopes) > 0 {
		scopes := make([]rest.Scope, len(o.Scopes))
		for i, scope := range o.Scopes {
			scopes[i] = rest.Scope(scope)
		}
		body.Scopes = &scopes
	}
	if o.Role != "" {
		role := rest.Role(o.Role)
		body.Role = &role
	}
	if !o.ExpiresAt.IsZero() {
		body.ExpiresAt = &o.ExpiresAt
	}
	return body
}

func toNewKey(made rest.NewKey, err error) (string, *Key, error) {
	if err != nil {
		return "", nil, err
	}
	return made.Key, toKey(made.Info), nil
}

// List goes through the keys, those that were revoked as well, and asks for each page as it is needed. Its error is the last pair.
func (k *Keys) List(ctx context.Context) iter.Seq2[*Key, error] {
	return pages(func(cursor *string) ([]rest.Key, *string, error) {
		resp, err := k.c.rest.ListKeys(ctx, &rest.ListKeysParams{Cursor: cursor})
		page, err := decode[rest.KeyPage](resp, err)
		return page.Keys, page.NextCursor, err
	}, toKey)
}

// Revoke has a key refused from then on. It stays in the list.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	if err := named("id", id); err != nil {
		return err
	}
	resp, err := k.c.rest.RevokeKey(ctx, id)
	_, err = decode[struct{}](resp, err)
	return err
}
