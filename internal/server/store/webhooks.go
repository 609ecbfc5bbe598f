package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Webhook is where a team has its events sent.
type Webhook = db.Webhook

// Delivery is one message to a webhook, and what became of it.
type Delivery = db.WebhookDelivery

// Due is a delivery that is to be sent now, with what it takes to send it.
type Due = db.DueDeliveriesRow

const (
	// maxWebhooks bounds a team's.
	maxWebhooks = 16
	// oldSecretTime is how long messages are signed with the secret before as well.
	oldSecretTime = 24 * time.Hour
	// maxDeliveries bounds how many of a webhook are kept that have ended.
	maxDeliveries = 10_000
	// testType is the type of a message that tells of nothing.
	testType = "webhook.test"
)

// The states of a delivery.
const (
	DeliveryPending   = "pending"
	DeliveryDelivered = "delivered"
	DeliveryFailed    = "failed" // given up
)

// NewWebhook is what AddWebhook makes a row of.
type NewWebhook struct {
	ID, Team, URL, Secret string
	States                []State // none is all
	Active                bool
}

// AddWebhook makes a webhook, which gets what happens from now on. One that was made under the same id before is returned as it is.
// ErrResourceExhausted when the team has as many as it may.
func (s *Store) AddWebhook(ctx context.Context, n NewWebhook) (Webhook, error) {
	var w Webhook
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		if _, err := q.LockTeam(ctx, n.Team); err != nil { // two at once count one after the other
			return found(err, "team", n.Team)
		}
		w, err = q.GetWebhook(ctx, db.GetWebhookParams{ID: n.ID, TeamID: n.Team})
		if err = kind(err); !errors.Is(err, errs.ErrNotFound) {
			return err
		}
		has, err := q.CountWebhooks(ctx, n.Team)
		if err != nil {
			return err
		}
		if has >= maxWebhooks {
			return fmt.Errorf("the team has %d webhooks, and no more are allowed: %w", has, errs.ErrResourceExhausted)
		}
		w, err = q.InsertWebhook(ctx, db.InsertWebhookParams{ID: n.ID, TeamID: n.Team, Url: n.URL, Secret: n.Secret, States: list(n.States),
			Active: n.Active})
		return err
	})
	return w, err
}

// list is a list that is no NULL.
func list(states []State) []string { return append([]string{}, states...) }

// GetWebhook returns a team's webhook. ErrNotFound when there is none.
func (s *Store) GetWebhook(ctx context.Context, team, webhook string) (Webhook, error) {
	w, err := s.q.GetWebhook(ctx, db.GetWebhookParams{ID: webhook, TeamID: team})
	return w, found(err, "webhook", webhook)
}

// ListWebhooks returns a page of a team's webhooks, by id, and the cursor of the next page, empty on the last.
func (s *Store) ListWebhooks(ctx context.Context, team, cursor string, limit int) ([]Webhook, string, error) {
	list, err := s.q.ListWebhooks(ctx, db.ListWebhooksParams{TeamID: team, After: cursor, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(w Webhook) string { return w.ID })
	return list, next, kind(err)
}

// WebhookChange is what UpdateWebhook changes; nil leaves it as it is.
type WebhookChange struct {
	URL, Secret *string
	States      *[]State
	Active      *bool
}

// UpdateWebhook changes a webhook. ErrNotFound when the team has none of that id.
func (s *Store) UpdateWebhook(ctx context.Context, team, webhook string, c WebhookChange) (Webhook, error) {
	p := db.UpdateWebhookParams{Url: c.URL, Active: c.Active, Secret: c.Secret, OldTime: oldSecretTime, ID: webhook, TeamID: team}
	if c.States != nil {
		p.States = list(*c.States)
	}
	w, err := s.q.UpdateWebhook(ctx, p)
	return w, found(err, "webhook", webhook)
}

// DeleteWebhook forgets a webhook, and what is still to be sent to it. ErrNotFound when the team has none of that id.
func (s *Store) DeleteWebhook(ctx context.Context, team, webhook string) error {
	n, err := s.q.DeleteWebhook(ctx, db.DeleteWebhookParams{ID: webhook, TeamID: team})
	if err == nil && n == 0 {
		return fmt.Errorf("webhook %q: %w", webhook, errs.ErrNotFound)
	}
	return kind(err)
}

// ListDeliveries returns a page of a webhook's deliveries, the newest first, and the cursor of the next page, empty on the last.
func (s *Store) ListDeliveries(ctx context.Context, team, webhook, cursor string, limit int) ([]Delivery, string, error) {
	before := int64(math.MaxInt64)
	if cursor != "" {
		var err error
		if before, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			return nil, "", errs.Field("cursor", "it is not one", "give next_cursor of the page before, as it is, or leave it out")
		}
	}
	if _, err := s.GetWebhook(ctx, team, webhook); err != nil {
		return nil, "", err
	}
	list, err := s.q.ListDeliveries(ctx, db.ListDeliveriesParams{WebhookID: webhook, Before: before, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(d Delivery) string { return strconv.FormatInt(d.Seq, 10) })
	return list, next, kind(err)
}

// message is what a webhook is sent; the API's document has it as WebhookMessage.
type message struct {
	Type      string       `json:"type"`
	Timestamp time.Time    `json:"timestamp"`
	Data      *messageData `json:"data,omitempty"`
}

type messageData struct {
	Sandbox string `json:"sandbox_id"`
	State   State  `json:"state"`
	Reason  string `json:"reason"`
}

func (m message) text() string {
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and a time
	}
	return string(raw)
}

// AddTest has a message sent to a webhook that tells of nothing. ErrFailedPrecondition when it is off.
func (s *Store) AddTest(ctx context.Context, team, webhook string) (Delivery, error) {
	w, err := s.on(ctx, team, webhook)
	if err != nil {
		return Delivery{}, err
	}
	d, err := s.q.InsertTestDelivery(ctx, db.InsertTestDeliveryParams{ID: id.NewOf(id.Delivery), WebhookID: w.ID, Type: testType,
		Body: message{Type: testType, Timestamp: time.Now().UTC()}.text()})
	s.tell(err)
	return d, found(err, "webhook", webhook)
}

// Redeliver has a message sent again, now. ErrNotFound when the webhook has none of that id, ErrFailedPrecondition when it is off.
func (s *Store) Redeliver(ctx context.Context, team, webhook, delivery string) (Delivery, error) {
	if _, err := s.on(ctx, team, webhook); err != nil {
		return Delivery{}, err
	}
	d, err := s.q.Redeliver(ctx, db.RedeliverParams{ID: delivery, WebhookID: webhook})
	s.tell(err)
	return d, found(err, "delivery", delivery)
}

func (s *Store) on(ctx context.Context, team, webhook string) (Webhook, error) {
	w, err := s.GetWebhook(ctx, team, webhook)
	if err == nil && !w.Active {
		err = fmt.Errorf("webhook %s is off; switch it on first: %w", webhook, errs.ErrFailedPrecondition)
	}
	return w, err
}

// webhooksPlace is the place of who makes deliveries of events.
const webhooksPlace = "webhooks"

// QueueDeliveries makes deliveries of at most limit events that have none yet, and returns how many events it has read. Each event is read once,
// by who has the lease; ErrLeaseLost for anybody else.
func (s *Store) QueueDeliveries(ctx context.Context, t Term, limit int) (events int, err error) {
	err = s.during(ctx, t, func(q *db.Queries) error {
		from, err := q.LockPlace(ctx, webhooksPlace)
		if err != nil {
			return err
		}
		at := Place{from.Tx, from.EventID}
		rows, err := q.EventsToSend(ctx, db.EventsToSendParams{Tx: at.tx, ID: at.id, Page: int32(limit)})
		if err != nil || len(rows) == 0 {
			return err
		}
		var p db.InsertDeliveriesParams
		for _, r := range rows {
			if next := (Place{r.Tx, r.ID}); next != at {
				at, events = next, events+1
			}
			if r.WebhookID == "" {
				continue
			}
			m := message{"sandbox." + r.State, r.At.UTC(), &messageData{r.SandboxID, r.State, r.Reason}}
			p.Ids, p.WebhookIds = append(p.Ids, id.NewOf(id.Delivery)), append(p.WebhookIds, r.WebhookID)
			p.Txs, p.EventIds, p.SandboxIds = append(p.Txs, r.Tx), append(p.EventIds, r.ID), append(p.SandboxIds, r.SandboxID)
			p.Types, p.Bodies = append(p.Types, m.Type), append(p.Bodies, m.text())
		}
		if len(p.Ids) > 0 {
			if err := q.InsertDeliveries(ctx, p); err != nil {
				return err
			}
		}
		return q.MovePlace(ctx, db.MovePlaceParams{Name: webhooksPlace, Tx: at.tx, EventID: at.id})
	})
	return events, err
}

// DueDeliveries returns at most limit deliveries that are to be sent now, and at most each of one webhook. Those that are being sent are left out,
// and webhooks that have no room for more.
func (s *Store) DueDeliveries(ctx context.Context, busy, full []string, each, limit int) ([]Due, error) {
	due, err := s.q.DueDeliveries(ctx, db.DueDeliveriesParams{Busy: list(busy), NoRoom: list(full), Each: int32(each), Page: int32(limit)})
	return due, kind(err)
}

// Attempt is how an attempt to send a delivery ended.
type Attempt struct {
	ID, Webhook string
	// Status is the answer's; 0 for none.
	Status int
	// Problem is why it was no success; empty for one.
	Problem string
	// Wait is how long until the next attempt; 0 gives it up.
	Wait time.Duration
	// Off switches the webhook off at once, and OffAfter when nothing has reached it for so long.
	Off      bool
	OffAfter time.Duration
}

// Attempted writes down how an attempt ended. Disabled is why the webhook was switched off by it, if it was. ErrLeaseLost when who tells no longer
// has the lease: then somebody else will send it again.
func (s *Store) Attempted(ctx context.Context, t Term, a Attempt) (disabled string, err error) {
	p := db.DeliveryEndedParams{State: DeliveryDelivered, ID: a.ID}
	if a.Status != 0 {
		status := int32(a.Status)
		p.Status = &status
	}
	if a.Problem != "" {
		problem := words(a.Problem)
		p.Error, p.State = &problem, DeliveryFailed
		if a.Wait > 0 {
			p.State, p.Wait = DeliveryPending, &a.Wait
		}
	}
	err = s.during(ctx, t, func(q *db.Queries) error {
		if _, err := q.LockWebhook(ctx, a.Webhook); errors.Is(kind(err), errs.ErrNotFound) {
			return nil // it was deleted meanwhile
		} else if err != nil {
			return err
		}
		if _, err := q.DeliveryEnded(ctx, p); err != nil && !errors.Is(kind(err), errs.ErrNotFound) {
			return err
		}
		if a.Problem == "" {
			return q.WebhookReached(ctx, a.Webhook)
		}
		long, err := q.WebhookFailed(ctx, db.WebhookFailedParams{ID: a.Webhook, Most: a.OffAfter})
		switch {
		case err != nil:
			return err
		case a.Off:
			disabled = "it asked for it: " + words(a.Problem)
		case long:
			disabled = fmt.Sprintf("nothing has reached it for %v: %s", a.OffAfter, words(a.Problem))
		default:
			return nil
		}
		return q.DisableWebhook(ctx, db.DisableWebhookParams{ID: a.Webhook, Reason: disabled})
	})
	if err != nil {
		disabled = ""
	}
	return disabled, err
}

// tidyDeliveries removes what has been kept long enough, and of each webhook what is too much.
func (s *Store) tidyDeliveries(ctx context.Context, before time.Time) error {
	_, err := s.q.DeleteOldDeliveries(ctx, before)
	_, err2 := s.q.DeleteExcessDeliveries(ctx, maxDeliveries)
	return errors.Join(err, err2)
}

// Wake is closed at the next change that this server makes. What another one changes it does not tell.
func (s *Store) Wake() <-chan struct{} { return s.changed.wait() }
