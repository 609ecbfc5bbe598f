package api

import (
	"cmp"
	"context"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/webhook"
)

func toWebhook(w store.Webhook) rest.Webhook {
	out := rest.Webhook{ID: w.ID, URL: w.Url, States: make([]rest.State, len(w.States)), Active: w.Active, DisabledReason: w.DisabledReason,
		FailingSince: w.FailingSince, CreatedAt: w.CreatedAt.UTC()}
	for i, s := range w.States {
		out.States[i] = rest.State(s)
	}
	return out
}

func toDelivery(d store.Delivery) rest.WebhookDelivery {
	return rest.WebhookDelivery{ID: d.ID, Type: d.Type, SandboxID: d.SandboxID, State: rest.WebhookDeliveryState(d.State), Attempts: d.Attempts,
		NextAttemptAt: d.NextAttemptAt, LastAttemptAt: d.LastAttemptAt, LastStatus: d.LastStatus, LastError: d.LastError, CreatedAt: d.CreatedAt.UTC()}
}

func fromStates(list []rest.State) []store.State {
	states := make([]store.State, len(list))
	for i, s := range list {
		states[i] = string(s)
	}
	return states
}

// CreateWebhook implements rest.StrictServerInterface.
func (s *server) CreateWebhook(ctx context.Context, r rest.CreateWebhookRequestObject) (rest.CreateWebhookResponseObject, error) {
	if err := s.Targets.Check(ctx, r.Body.URL); err != nil {
		return nil, err
	}
	secret := cmp.Or(or(r.Body.Secret, ""), webhook.NewSecret())
	if err := webhook.CheckSecret(secret); err != nil {
		return nil, err
	}
	w, err := s.Store.AddWebhook(ctx, store.NewWebhook{ID: opOf(ctx).Named(id.Webhook), Team: team(ctx), URL: r.Body.URL, Secret: secret,
		States: fromStates(or(r.Body.States, nil)), Active: or(r.Body.Active, true)})
	if err != nil {
		return nil, err
	}
	return rest.CreateWebhook201JSONResponse{Secret: w.Secret, Webhook: toWebhook(w)}, nil
}

// ListWebhooks implements rest.StrictServerInterface.
func (s *server) ListWebhooks(ctx context.Context, r rest.ListWebhooksRequestObject) (rest.ListWebhooksResponseObject, error) {
	list, next, err := s.Store.ListWebhooks(ctx, team(ctx), or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListWebhooks200JSONResponse{Webhooks: make([]rest.Webhook, len(list)), NextCursor: given(next)}
	for i, w := range list {
		page.Webhooks[i] = toWebhook(w)
	}
	return page, nil
}

// GetWebhook implements rest.StrictServerInterface.
func (s *server) GetWebhook(ctx context.Context, r rest.GetWebhookRequestObject) (rest.GetWebhookResponseObject, error) {
	w, err := s.Store.GetWebhook(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.GetWebhook200JSONResponse(toWebhook(w)), nil
}

// UpdateWebhook implements rest.StrictServerInterface.
func (s *server) UpdateWebhook(ctx context.Context, r rest.UpdateWebhookRequestObject) (rest.UpdateWebhookResponseObject, error) {
	b := r.Body
	if b.URL != nil {
		if err := s.Targets.Check(ctx, *b.URL); err != nil {
			return nil, err
		}
	}
	if b.Secret != nil {
		if err := webhook.CheckSecret(*b.Secret); err != nil {
			return nil, err
		}
	}
	change := store.WebhookChange{URL: b.URL, Secret: b.Secret, Active: b.Active}
	if b.States != nil {
		states := fromStates(*b.States)
		change.States = &states
	}
	w, err := s.Store.UpdateWebhook(ctx, team(ctx), r.ID, change)
	if err != nil {
		return nil, err
	}
	return rest.UpdateWebhook200JSONResponse(toWebhook(w)), nil
}

// DeleteWebhook implements rest.StrictServerInterface.
func (s *server) DeleteWebhook(ctx context.Context, r rest.DeleteWebhookRequestObject) (rest.DeleteWebhookResponseObject, error) {
	if err := s.Store.DeleteWebhook(ctx, team(ctx), r.ID); err != nil {
		return nil, err
	}
	return rest.DeleteWebhook204Response{}, nil
}

// TestWebhook implements rest.StrictServerInterface.
func (s *server) TestWebhook(ctx context.Context, r rest.TestWebhookRequestObject) (rest.TestWebhookResponseObject, error) {
	d, err := s.Store.AddTest(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.TestWebhook201JSONResponse(toDelivery(d)), nil
}

// ListWebhookDeliveries implements rest.StrictServerInterface.
func (s *server) ListWebhookDeliveries(ctx context.Context, r rest.ListWebhookDeliveriesRequestObject) (rest.ListWebhookDeliveriesResponseObject, error) {
	list, next, err := s.Store.ListDeliveries(ctx, team(ctx), r.ID, or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListWebhookDeliveries200JSONResponse{Deliveries: make([]rest.WebhookDelivery, len(list)), NextCursor: given(next)}
	for i, d := range list {
		page.Deliveries[i] = toDelivery(d)
	}
	return page, nil
}

// RedeliverWebhook implements rest.StrictServerInterface.
func (s *server) RedeliverWebhook(ctx context.Context, r rest.RedeliverWebhookRequestObject) (rest.RedeliverWebhookResponseObject, error) {
	d, err := s.Store.Redeliver(ctx, team(ctx), r.ID, r.Delivery)
	if err != nil {
		return nil, err
	}
	return rest.RedeliverWebhook200JSONResponse(toDelivery(d)), nil
}
