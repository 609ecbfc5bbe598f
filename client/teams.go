package client

import (
	"context"
	"iter"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Limits are what a team or a key may have at once, and how often it may ask. Nil is no limit, and zero is none at all. A key's are within its team's.
type Limits struct {
	Sandboxes *int64 // that have not ended, paused ones as well
	VCPUs     *int64 // of sandboxes that are neither paused nor being destroyed
	MemoryMiB *int64 // of the same
	DiskBytes *int64 // of sandboxes and snapshots, disk and memory, each as large as it can get
	Snapshots *int64
	// RequestsPerSecond are answered in the long run, by each server; Burst may come at once before that, as many as in a second unless it is given.
	RequestsPerSecond *int32
	Burst             *int32
}

func toLimits(l rest.Limits) Limits {
	return Limits{Sandboxes: l.Sandboxes, VCPUs: l.Vcpus, MemoryMiB: l.MemoryMib, DiskBytes: l.DiskBytes, Snapshots: l.Snapshots,
		RequestsPerSecond: l.RequestsPerSecond, Burst: l.Burst}
}

func (l Limits) rest() *rest.Limits {
	return &rest.Limits{Sandboxes: l.Sandboxes, Vcpus: l.VCPUs, MemoryMib: l.MemoryMiB, DiskBytes: l.DiskBytes, Snapshots: l.Snapshots,
		RequestsPerSecond: l.RequestsPerSecond, Burst: l.Burst}
}

// Used is what a team has, counted as Limits are.
type Used struct{ Sandboxes, VCPUs, MemoryMiB, DiskBytes, Snapshots int64 }

// Team is who sandboxes, snapshots, keys and webhooks belong to.
type Team struct {
	ID        string // tm- and 20 of 0-9a-z
	Name      string
	Limits    Limits
	Used      *Used // nil in a list
	CreatedAt time.Time
}

func toTeam(t rest.Team) *Team {
	made := &Team{ID: t.ID, Name: t.Name, Limits: toLimits(t.Limits), CreatedAt: t.CreatedAt}
	if u := t.Used; u != nil {
		made.Used = &Used{Sandboxes: u.Sandboxes, VCPUs: u.Vcpus, MemoryMiB: u.MemoryMib, DiskBytes: u.DiskBytes, Snapshots: u.Snapshots}
	}
	return made
}

// as turns what was decoded into what the caller gets.
func as[W, T any](convert func(W) *T, v W, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return convert(v), nil
}

// Teams are all teams. They need ScopeOperator, but for Own.
type Teams struct{ c *Client }

// Own is the key's own team.
func (t *Teams) Own(ctx context.Context) (*Team, error) {
	resp, err := t.c.rest.GetOwnTeam(ctx)
	got, err := decode[rest.Team](resp, err)
	return as(toTeam, got, err)
}

// Create makes a team. It has no key yet.
func (t *Teams) Create(ctx context.Context, name string, limits Limits) (*Team, error) {
	resp, err := t.c.rest.CreateTeam(ctx, &rest.CreateTeamParams{IdempotencyKey: once(ctx)}, rest.CreateTeam{Name: name, Limits: limits.rest()})
	made, err := decode[rest.Team](resp, err)
	return as(toTeam, made, err)
}

// Get tells of a team.
func (t *Teams) Get(ctx context.Context, id string) (*Team, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := t.c.rest.GetTeam(ctx, id)
	got, err := decode[rest.Team](resp, err)
	return as(toTeam, got, err)
}

// List goes through the teams by id, without what they use, and asks for each page as it is needed. Its error is the last pair.
func (t *Teams) List(ctx context.Context) iter.Seq2[*Team, error] {
	return pages(func(cursor *string) ([]rest.Team, *string, error) {
		resp, err := t.c.rest.ListTeams(ctx, &rest.ListTeamsParams{Cursor: cursor})
		page, err := decode[rest.TeamPage](resp, err)
		return page.Teams, page.NextCursor, err
	}, toTeam)
}

// UpdateTeamOptions are what is to change of a team.
type UpdateTeamOptions struct {
	Name   string  // empty is left as it is
	Limits *Limits // all that there are from then on; nil is left as it is
}

// Update changes a team's name or limits. What is over a new limit stays; more is refused until it is below.
func (t *Teams) Update(ctx context.Context, id string, o UpdateTeamOptions) (*Team, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	body := rest.UpdateTeam{Name: given(o.Name)}
	if o.Limits != nil {
		body.Limits = o.Limits.rest()
	}
	resp, err := t.c.rest.UpdateTeam(sent(ctx, manner{safe: always}), id, body)
	got, err := decode[rest.Team](resp, err)
	return as(toTeam, got, err)
}

// Delete deletes a team and its keys. One that has sandboxes or snapshots is ErrFailedPrecondition, and so is the caller's own.
func (t *Teams) Delete(ctx context.Context, id string) error {
	if err := named("id", id); err != nil {
		return err
	}
	resp, err := t.c.rest.DeleteTeam(ctx, id)
	_, err = decode[struct{}](resp, err)
	return err
}

// CreateKey makes an API key of a team, as Keys.Create makes one of the caller's.
func (t *Teams) CreateKey(ctx context.Context, id string, o CreateKeyOptions) (secret string, _ *Key, _ error) {
	if err := named("id", id); err != nil {
		return "", nil, err
	}
	resp, err := t.c.rest.CreateTeamKey(ctx, id, o.rest())
	return toNewKey(decode[rest.NewKey](resp, err))
}

// ListKeys goes through a team's keys, as Keys.List does through those of the caller's.
func (t *Teams) ListKeys(ctx context.Context, id string) iter.Seq2[*Key, error] {
	return pages(func(cursor *string) ([]rest.Key, *string, error) {
		if err := named("id", id); err != nil {
			return nil, nil, err
		}
		resp, err := t.c.rest.ListTeamKeys(ctx, id, &rest.ListTeamKeysParams{Cursor: cursor})
		page, err := decode[rest.KeyPage](resp, err)
		return page.Keys, page.NextCursor, err
	}, toKey)
}

// RevokeKey has a team's key refused from then on.
func (t *Teams) RevokeKey(ctx context.Context, id, key string) error {
	if err := named("id", id); err != nil {
		return err
	}
	if err := named("key", key); err != nil {
		return err
	}
	resp, err := t.c.rest.RevokeTeamKey(ctx, id, key)
	_, err = decode[struct{}](resp, err)
	return err
}
