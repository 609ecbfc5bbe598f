package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

const (
	// maxAnswer bounds the answer to a quiesce or a wake, in bytes; envd's has some hundred.
	maxAnswer = 16 << 10
	// maxSteps and maxDuration bound what is believed of one.
	maxSteps    = 32
	maxDuration = 100 * 365 * 24 * time.Hour
	// maxRefusals is how often a wake may be refused. Once is not enough: the answer may be that of a wake that began before the
	// freeze.
	maxRefusals = 3
)

// Awake is what envd says of a start. It is a guest's word: fit to be shown and counted, not to be relied on.
type Awake struct {
	// Start is the start that envd has applied, as the metadata named it.
	Start string
	// Reseeded says that envd took it for another start than the one before, and made the machine distinct. It is false when the
	// machine was only held for a moment.
	Reseeded bool
	// ClockOffset is how far off the guest's clock was.
	ClockOffset time.Duration
	// Steps are what was done, in its order.
	Steps []AwakeStep
}

// AwakeStep is one thing that envd did, what it took, and what it left out, if anything.
type AwakeStep struct {
	Name string
	Took time.Duration
	Note string
}

// Quiesce makes envd forget its token and refuse all calls until it is woken: the machine may be frozen. Processes and streams go
// on. ErrUnavailable with the reason when the machine can't be frozen, or is quiesced already. When it fails the guest may be
// quiesced or not: WaitAwake, with a token in the metadata, makes it answer again.
func (c *Client) Quiesce(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+"/quiesce", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return broken(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return refused("quiesce", resp)
	}
	return nil
}

// WaitAwake wakes a guest that was started from frozen state, or held: it returns when envd has made the machine distinct, if that
// is due, and has answered a call that shows the token. The metadata must have token and start by then.
//
// It tries until ctx ends while the guest does not answer, and then fails with the context's cause and what was wrong last.
// ErrUnauthenticated at once when envd wants another token; ErrUnavailable with the guest's reason when it has refused to wake
// several times; ErrFailedPrecondition when its envd is one that can't be woken.
func (c *Client) WaitAwake(ctx context.Context) (Awake, error) {
	c.Close() // what was open before leads to a machine that is not there any more
	var awake Awake
	refusals := 0
	err := c.wait(ctx, awakeAfter, func(ctx context.Context) (err error) {
		if awake, err = c.wake(ctx); err != nil {
			return err
		}
		return c.ping(ctx)
	}, func(err error) bool {
		var r *refusal
		if errors.As(err, &r) {
			refusals++
		}
		return refusals >= maxRefusals || errors.Is(err, errs.ErrUnauthenticated) || errors.Is(err, errs.ErrFailedPrecondition)
	})
	if err != nil {
		return Awake{}, err
	}
	return awake, nil
}

// wake is one call. It shows no token: the guest's memory may be another's.
func (c *Client) wake(ctx context.Context) (Awake, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+"/wake", nil)
	if err != nil {
		return Awake{}, err
	}
	resp, err := c.open.Do(req)
	if err != nil {
		return Awake{}, broken(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		return Awake{}, &guestError{kind: errs.ErrFailedPrecondition, text: "guest: this envd can't be woken: it is too old"}
	default:
		return Awake{}, refused("wake", resp)
	}
	body, err := readAnswer(resp.Body)
	if err != nil {
		return Awake{}, err
	}
	return parseAwake(body)
}

// readAnswer reads a body, and refuses one that is too long.
func readAnswer(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	switch {
	case err != nil:
		return nil, broken(err)
	case len(body) > maxAnswer:
		return nil, unsound("it is longer than %d bytes", maxAnswer)
	}
	return body, nil
}

// refusal is an answer that was no.
type refusal struct{ guestError }

// refused reads the reason of an answer that was no. An unsound one has none.
func refused(what string, resp *http.Response) error {
	var answer struct{ Message string }
	if body, err := readAnswer(resp.Body); err == nil {
		_ = json.Unmarshal(body, &answer)
	}
	reason := answer.Message
	if reason == "" {
		reason = fmt.Sprintf("status %d", resp.StatusCode)
	}
	kind := errs.ErrUnavailable
	if resp.StatusCode == http.StatusUnauthorized {
		kind = errs.ErrUnauthenticated
	}
	return &refusal{guestError{kind: kind, text: clean("guest: " + what + " refused: " + reason)}}
}

// parseAwake reads the answer to a wake. What is not there is zero, what is unknown is left alone, and what can't be is bounded.
func parseAwake(body []byte) (Awake, error) {
	var answer struct {
		Start         string
		Reseeded      bool
		ClockOffsetMs float64
		Steps         []struct {
			Name, Note string
			Ms         float64
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Awake{}, unsound("%v", err)
	}
	a := Awake{Start: clean(answer.Start), Reseeded: answer.Reseeded, ClockOffset: duration(answer.ClockOffsetMs)}
	for _, s := range answer.Steps[:min(len(answer.Steps), maxSteps)] {
		a.Steps = append(a.Steps, AwakeStep{Name: clean(s.Name), Took: max(duration(s.Ms), 0), Note: clean(s.Note)})
	}
	return a, nil
}

// duration is a number of milliseconds that may be any.
func duration(ms float64) time.Duration {
	const most = float64(maxDuration / time.Millisecond)
	return time.Duration(max(min(ms, most), -most) * float64(time.Millisecond))
}
