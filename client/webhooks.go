package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/webhook"
)

// Webhook is an address that is told of the changes of the team's sandboxes.
type Webhook struct {
	ID             string // wh- and 20 of 0-9a-z
	URL            string
	States         []State // only changes to one of these are sent; none is all
	Active         bool
	DisabledReason string    // why the server switched it off
	FailingSince   time.Time // since when nothing has reached it; zero when something does
	CreatedAt      time.Time
}

func toWebhook(w rest.Webhook) *Webhook {
	made := &Webhook{ID: w.ID, URL: w.URL, Active: w.Active, DisabledReason: or(w.DisabledReason, ""), FailingSince: or(w.FailingSince, time.Time{}), CreatedAt: w.CreatedAt}
	for _, s := range w.States {
		made.States = append(made.States, State(s))
	}
	return made
}

func restStates(states []State) *rest.WebhookStates {
	if states == nil {
		return nil
	}
	list := rest.WebhookStates{}
	for _, s := range states {
		list = append(list, rest.State(s))
	}
	return &list
}

// Webhooks are the webhooks of the key's team.
type Webhooks struct{ c *Client }

// WebhookOptions say what a webhook is to be, or what is to change of it; nil and empty are left as they are.
type WebhookOptions struct {
	URL    string
	States []State // only changes to one of these are sent; an empty list that is not nil is all
	Secret string  // what messages are signed with; of a new webhook, the server makes one unless it is given
	Active *bool   // a new one is, unless this says otherwise
}

// Create makes a webhook and returns the secret that its messages are signed with: it is told this once.
func (w *Webhooks) Create(ctx context.Context, o WebhookOptions) (secret string, _ *Webhook, _ error) {
	body := rest.CreateWebhook{URL: o.URL, States: restStates(o.States), Secret: given(o.Secret), Active: o.Active}
	resp, err := w.c.rest.CreateWebhook(ctx, &rest.CreateWebhookParams{IdempotencyKey: once(ctx)}, body)
	made, err := decode[rest.NewWebhook](resp, err)
	if err != nil {
		return "", nil, err
	}
	return made.Secret, toWebhook(made.Webhook), nil
}

// List goes through the webhooks and asks for each page as it is needed. Its error is the last pair.
func (w *Webhooks) List(ctx context.Context) iter.Seq2[*Webhook, error] {
	return pages(func(cursor *string) ([]rest.Webhook, *string, error) {
		resp, err := w.c.rest.ListWebhooks(ctx, &rest.ListWebhooksParams{Cursor: cursor})
		page, err := decode[rest.WebhookPage](resp, err)
		return page.Webhooks, page.NextCursor, err
	}, toWebhook)
}

// Get tells of a webhook.
func (w *Webhooks) Get(ctx context.Context, id string) (*Webhook, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := w.c.rest.GetWebhook(ctx, id)
	got, err := decode[rest.Webhook](resp, err)
	return as(toWebhook, got, err)
}

// Update changes a webhook.
func (w *Webhooks) Update(ctx context.Context, id string, o WebhookOptions) (*Webhook, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	body := rest.UpdateWebhook{URL: given(o.URL), States: restStates(o.States), Secret: given(o.Secret), Active: o.Active}
	resp, err := w.c.rest.UpdateWebhook(sent(ctx, manner{safe: always}), id, body)
	got, err := decode[rest.Webhook](resp, err)
	return as(toWebhook, got, err)
}

// Delete deletes a webhook. What was still to be sent is not sent any more.
func (w *Webhooks) Delete(ctx context.Context, id string) error {
	if err := named("id", id); err != nil {
		return err
	}
	resp, err := w.c.rest.DeleteWebhook(ctx, id)
	_, err = decode[struct{}](resp, err)
	return err
}

// DeliveryState is what became of a message.
type DeliveryState string

// The states of deliveries.
const (
	DeliveryPending   DeliveryState = "pending" // still to be sent, or to be sent again
	DeliveryDelivered DeliveryState = "delivered"
	DeliveryFailed    DeliveryState = "failed" // it is given up
)

// Delivery is one message to a webhook. Times that are zero have not come.
type Delivery struct {
	ID            string // wd- and 20 of 0-9a-z
	Type          string // "sandbox.running", "webhook.test"
	SandboxID     string // empty in a test
	State         DeliveryState
	Attempts      int // how often it was sent
	NextAttemptAt time.Time
	LastAttemptAt time.Time
	LastStatus    int    // HTTP's, of the last attempt; 0 when there was no answer
	LastError     string // why the last attempt was no success
	CreatedAt     time.Time
}

func toDelivery(d rest.WebhookDelivery) *Delivery {
	return &Delivery{ID: d.ID, Type: d.Type, SandboxID: or(d.SandboxID, ""), State: DeliveryState(d.State), Attempts: int(d.Attempts),
		NextAttemptAt: or(d.NextAttemptAt, time.Time{}), LastAttemptAt: or(d.LastAttemptAt, time.Time{}), LastStatus: int(or(d.LastStatus, 0)),
		LastError: or(d.LastError, ""), CreatedAt: d.CreatedAt}
}

// Deliveries goes through what was sent to a webhook, or is to be, the newest first. Its error is the last pair.
func (w *Webhooks) Deliveries(ctx context.Context, id string) iter.Seq2[*Delivery, error] {
	return pages(func(cursor *string) ([]rest.WebhookDelivery, *string, error) {
		if err := named("id", id); err != nil {
			return nil, nil, err
		}
		resp, err := w.c.rest.ListWebhookDeliveries(ctx, id, &rest.ListWebhookDeliveriesParams{Cursor: cursor})
		page, err := decode[rest.WebhookDeliveryPage](resp, err)
		return page.Deliveries, page.NextCursor, err
	}, toDelivery)
}

// Test sends a webhook a message that tells of nothing. It is sent soon after: the delivery says what became of it.
func (w *Webhooks) Test(ctx context.Context, id string) (*Delivery, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := w.c.rest.TestWebhook(ctx, id, &rest.TestWebhookParams{IdempotencyKey: once(ctx)})
	made, err := decode[rest.WebhookDelivery](resp, err)
	return as(toDelivery, made, err)
}

// Redeliver sends a message again, with the Webhook-Id that it had. One that is still to be sent is sent now.
func (w *Webhooks) Redeliver(ctx context.Context, id, delivery string) (*Delivery, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	if err := named("delivery", delivery); err != nil {
		return nil, err
	}
	resp, err := w.c.rest.RedeliverWebhook(ctx, id, delivery, &rest.RedeliverWebhookParams{IdempotencyKey: once(ctx)})
	got, err := decode[rest.WebhookDelivery](resp, err)
	return as(toDelivery, got, err)
}

// VerifyWebhook says whether a message that a receiver got was signed with a webhook's secret, and sent in the last five minutes. The body is what
// came, byte for byte. One that can't be trusted is ErrUnauthenticated, and a secret that is none ErrInvalid. The same message may come twice,
// with the same Webhook-Id.
func VerifyWebhook(secret string, header http.Header, body []byte) error {
	err := webhook.Verify(header, body, time.Now(), secret)
	var field *errs.FieldError
	switch {
	case errors.As(err, &field):
		return invalid(field.Field, field.Problem, field.Fix)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return nil
}
