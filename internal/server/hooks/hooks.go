// Package hooks sends teams' events to their webhooks.
//
//	h := hooks.New(store, hooks.Targets{}, log)
//	err := h.Targets.Check(ctx, url)          // before a webhook is made
//	go h.Run(ctx)                             // of several servers, one sends
//
// An event becomes a delivery for each webhook that gets it, with a body and an id that stay the same at every attempt; the two steps are apart, so
// that a receiver that is slow holds up nothing but itself. A delivery is sent until it was answered well or is given up. It may come twice: when the
// server dies after it was sent and before that is written down, and when a receiver takes it and does not say so in time.
//
// Order: of one sandbox, a message is sent when those before it have been delivered or given up. Of different sandboxes none waits for another.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/server/lease"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/internal/version"
	"wrenn.dev/wrenn/internal/webhook"
)

const (
	// atOnce bounds how many messages are sent at once, perWebhook those to one webhook, and perFailing those to one that was not reached last.
	atOnce     = 256
	perWebhook = 4
	perFailing = 1
	// eventsAtOnce is how many events are read in one transaction, and gatherTime how long some are waited for to be read together.
	eventsAtOnce = 500
	gatherTime   = 50 * time.Millisecond
	// pollTime is how soon is seen what another server changed, and what is due again.
	pollTime = time.Second
)

// When a delivery is sent again.
const (
	firstWait = 5 * time.Second
	waitGrows = 4
	maxWait   = 3 * time.Hour
	// giveUp is how long a delivery is tried, and offAfter how long a webhook is that nothing reaches.
	giveUp   = 3 * 24 * time.Hour
	offAfter = 5 * 24 * time.Hour
)

// Hooks sends to webhooks.
type Hooks struct {
	Targets Targets
	// Observe, unless nil, is told of each attempt that has ended: delivered, retried or failed.
	Observe func(outcome string, took time.Duration)
	// Held, unless nil, is told when this server begins and ends to be the one that sends.
	Held func(bool)

	store  *store.Store
	log    *slog.Logger
	client *http.Client
	// waitFor is how long a delivery rests after an attempt, and poll how often is looked for those that have rested; tests have less patience.
	waitFor func(attempts int) time.Duration
	poll    time.Duration
}

// New returns one. It starts nothing.
func New(s *store.Store, t Targets, log *slog.Logger) *Hooks {
	return &Hooks{Targets: t, store: s, log: log, client: t.client(), waitFor: wait, poll: pollTime}
}

// wait is how long a delivery rests after so many attempts: longer and longer, and not the same for all.
func wait(attempts int) time.Duration {
	d := firstWait
	for range attempts - 1 {
		if d = waitGrows * d; d > maxWait {
			d = maxWait
			break
		}
	}
	return d - rand.N(d/4+1) //nolint:gosec // nobody gains by guessing it
}

// Run sends until ctx ends, as long as this server has the lease.
func (h *Hooks) Run(ctx context.Context) {
	lease.Run(ctx, h.store, lease.Config{Name: "webhooks", Log: h.log, Held: h.Held}, h.send)
	h.client.CloseIdleConnections()
}

// sending is what is under way under one term of the lease.
type sending struct {
	*Hooks
	term store.Term

	mu   sync.Mutex
	busy map[string]store.Due // deliveries that are being sent, by id
	free chan struct{}        // has something when one has ended
}

// send makes deliveries of events and sends them, until ctx ends.
func (h *Hooks) send(ctx context.Context, term store.Term) error {
	s := &sending{Hooks: h, term: term, busy: map[string]store.Due{}, free: make(chan struct{}, 1)}
	var running sync.WaitGroup
	defer running.Wait()
	poll := time.NewTicker(h.poll)
	defer poll.Stop()
	for ctx.Err() == nil {
		wake := h.store.Wake() // before it is looked, so that no change falls in between
		events, err := h.store.QueueDeliveries(ctx, term, eventsAtOnce)
		begun := 0
		if err == nil {
			begun, err = s.begin(ctx, &running)
		}
		if err != nil {
			return err
		}
		if events == eventsAtOnce || begun > 0 {
			continue
		}
		select {
		case <-wake:
			time.Sleep(gatherTime)
		case <-s.free:
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// begin begins to send what is due, as far as there is room, and says how many that were.
func (s *sending) begin(ctx context.Context, running *sync.WaitGroup) (begun int, err error) {
	busy, full := s.taken()
	if len(busy) >= atOnce {
		return 0, nil
	}
	due, err := s.store.DueDeliveries(ctx, busy, full, perWebhook, atOnce)
	if err != nil {
		return 0, err
	}
	for _, d := range due {
		if !s.take(d) {
			continue
		}
		begun++
		running.Go(func() {
			defer s.leave(d)
			s.deliver(ctx, d)
		})
	}
	return begun, nil
}

// taken are the deliveries that are being sent, and the webhooks to which no more may be.
func (s *sending) taken() (busy, full []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for delivery, d := range s.busy {
		busy = append(busy, delivery)
		if !s.room(d) {
			full = append(full, d.WebhookID)
		}
	}
	return busy, full
}

// room says whether another delivery may be sent to the webhook of d.
//
// Preconditions: s.mu is held.
func (s *sending) room(d store.Due) bool {
	most, same := perWebhook, 0
	if d.FailingSince != nil {
		most = perFailing
	}
	for _, other := range s.busy {
		if other.WebhookID == d.WebhookID {
			same++
		}
	}
	return same < most
}

// take says whether there is room for a delivery, and takes it.
func (s *sending) take(d store.Due) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.busy) >= atOnce || !s.room(d) {
		return false
	}
	s.busy[d.ID] = d
	return true
}

func (s *sending) leave(d store.Due) {
	s.mu.Lock()
	delete(s.busy, d.ID)
	s.mu.Unlock()
	select {
	case s.free <- struct{}{}:
	default:
	}
}

// deliver sends a delivery once and writes down how that ended.
func (s *sending) deliver(ctx context.Context, d store.Due) {
	began := time.Now()
	status, err := s.post(ctx, d)
	if ctx.Err() != nil && err != nil {
		return // the next holder sends it; that it was cut off is not the receiver's fault
	}
	a := store.Attempt{ID: d.ID, Webhook: d.WebhookID, Status: status, OffAfter: offAfter, Off: status == http.StatusGone}
	outcome := "delivered"
	if err != nil {
		a.Problem, outcome = err.Error(), "failed"
		if rest := s.waitFor(int(d.Attempts) + 1); time.Since(d.AskedAt)+rest < giveUp {
			a.Wait, outcome = rest, "retried"
		}
	}
	if s.Observe != nil {
		s.Observe(outcome, time.Since(began))
	}
	var disabled string
	err = cleanup.Do(ctx, func(ctx context.Context) (err error) { // what was delivered was, also when the server is told to stop
		disabled, err = s.store.Attempted(ctx, s.term, a)
		return err
	})
	if err != nil {
		s.log.Warn("an attempt was not written down; it is sent again", "webhook", d.WebhookID, "delivery", d.ID, "error", err)
	}
	if disabled != "" {
		s.log.Warn("a webhook was switched off", "webhook", d.WebhookID, "reason", disabled)
	}
}

// post sends a delivery. The error is why it was no success, fit to be told to the webhook's owner: what is behind an address that is not public it
// does not tell.
func (s *sending) post(ctx context.Context, d store.Due) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Url, strings.NewReader(d.Body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Wrenn/"+version.String())
	secrets := []string{d.Secret}
	if d.OldSecret != nil && time.Now().Before(*d.OldUntil) {
		secrets = append(secrets, *d.OldSecret)
	}
	if err := webhook.Sign(req.Header, d.ID, time.Now(), []byte(d.Body), secrets...); err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, told(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the status says it all
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return resp.StatusCode, fmt.Errorf("it answered with a redirect (%d), which is not followed", resp.StatusCode)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return resp.StatusCode, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return resp.StatusCode, nil
}

// told is why no answer came, as far as it is the owner's affair: not which addresses this server has, or which name server it asks.
func told(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var send *url.Error
	switch {
	case errors.Is(err, errPrivate):
		return errPrivate
	case errors.As(err, &dns):
		return errors.New("its host has no address that can be found")
	case errors.As(err, &send) && send.Timeout():
		return fmt.Errorf("it did not answer within %v", attemptTime)
	case errors.As(err, &op):
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	case send != nil:
		return send.Err
	}
	return err
}
