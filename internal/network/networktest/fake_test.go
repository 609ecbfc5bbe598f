package networktest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guests are the ports that the guests of a fake serve.
type guests struct {
	mu    sync.Mutex
	ports map[string]int
}

func (g *guests) serve(_ *testing.T, sandbox string, _ network.Slot, port int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ports[sandbox] = port
}

func (g *guests) answer(_ context.Context, sandbox string, port int) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch served := g.ports[sandbox]; served {
	case 0:
		return nil, nil
	case port:
		here, there := net.Pipe()
		go networktest.Echo(there)
		return here, nil
	}
	return nil, fmt.Errorf("port %d: %w: %w", port, errs.ErrUnavailable, syscall.ECONNREFUSED)
}

func TestFakePassesTheSuite(t *testing.T) {
	networktest.Run(t, func(*testing.T) networktest.Host {
		g := &guests{ports: map[string]int{}}
		return networktest.Host{Driver: &networktest.Fake{Slots: networktest.Slots, Guest: g.answer}, Serve: g.serve}
	})
}

func TestFakeFailsOnDemand(t *testing.T) {
	ctx, boom := t.Context(), errors.New("boom")
	var failing string
	f := &networktest.Fake{Slots: 1, Fail: func(op, _ string) error {
		if op == failing {
			return boom
		}
		return nil
	}}
	sandbox := id.New()
	acquire := func() error {
		_, err := f.Acquire(ctx, sandbox, network.Policy{Internet: true}, func(slot int) int { return 100 + slot })
		return err
	}
	for _, c := range []struct {
		op string
		do func() error
	}{
		{"acquire", acquire},
		{"dial", func() error { _, err := f.Dial(ctx, sandbox, 7); return err }},
		{"release", func() error { return f.Release(ctx, sandbox) }},
		{"list", func() error { _, err := f.List(ctx); return err }},
		{"close", func() error { return f.Close(ctx) }},
	} {
		failing = c.op
		if err := c.do(); !errors.Is(err, boom) {
			t.Errorf("%s: %v, want %v", c.op, err, boom)
		}
		failing = ""
		if c.op == "acquire" {
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := f.Taken()[sandbox]
	if got.UID != 100 || !got.Policy.Internet || got.Slot.Index != 0 {
		t.Errorf("taken: %+v", got)
	}
}
