package hosts_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/member"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/store"
	agentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestATokenIsGoodOnce(t *testing.T) {
	i := newInstallation(t)
	s, other := i.serve("127.0.0.1:0"), newInstallation(t).serve("127.0.0.1:0")
	good := s.token(t, time.Hour)
	one, two := i.machine(quota.Amount{}), i.machine(quota.Amount{})
	first, err := member.Join(t.Context(), one.cfg, good, "")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	again, err := member.Join(t.Context(), one.cfg, good, "")
	if err != nil || again.Host() != first.Host() {
		t.Errorf("the same machine again: %v", err)
	}
	forged := good
	forged.Secret[3] ^= 1
	wrong := s.token(t, time.Hour)
	wrong.Pin = other.token(t, time.Hour).Pin
	for name, token := range map[string]pki.Token{"used": good, "expired": s.token(t, -time.Second), "forged": forged, "of another authority": wrong,
		"of another server": other.token(t, time.Hour)} {
		address := s.address
		if _, err := member.Join(t.Context(), two.cfg, token, address); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := member.Open(two.cfg); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it did not join: %v", err)
	}
	list, _, err := s.ListHosts(t.Context(), "", 10)
	if err != nil || len(list) != 1 || list[0].ID != first.Host() || list[0].State != store.HostJoining {
		t.Errorf("%+v %v", list, err)
	}
}

// TestAnAnswerThatDidNotCome has the machine be cut off after the server let it in: the same token lets it, and nobody else, in again.
func TestAnAnswerThatDidNotCome(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m, token := i.machine(quota.Amount{}), s.token(t, time.Hour)
	if _, err := member.Join(t.Context(), m.cfg, token, "127.0.0.1:1"); err == nil { // leaves its key behind
		t.Fatal("nobody is there")
	}
	first, err := member.Join(t.Context(), m.cfg, token, "")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	i.sql(`UPDATE join_tokens SET expires_at = now() - interval '1 hour'`)
	again, err := member.Join(t.Context(), m.cfg, token, "")
	if err != nil || again.Host() != first.Host() {
		t.Error(err)
	}
}

func TestSandboxesGoWhereThereIsRoom(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	small, large := i.host(s, quota.Amount{Sandboxes: 1, MemoryMiB: 1024}), i.host(s, quota.Amount{Sandboxes: 3, MemoryMiB: 4096})
	on := map[string]int{}
	for range 4 {
		on[i.create(s).HostID]++
	}
	if on[small.id] != 1 || on[large.id] != 3 {
		t.Errorf("%v", on)
	}
	_, err := s.Control.Create(t.Context(), i.team, control.NewOp(), control.Spec{Template: "base", OnExpiry: "destroy"})
	if !errors.Is(err, errs.ErrResourceExhausted) || !strings.Contains(err.Error(), "1 sandboxes (0 are free)") {
		t.Error(err)
	}
}

func TestADrainedHostGetsNone(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	one, two := i.host(s, quota.Amount{MemoryMiB: 4096}), i.host(s, quota.Amount{MemoryMiB: 4096})
	there := i.create(s)
	drained, other := one, two
	if there.HostID == two.id {
		drained, other = two, one
	}
	if _, err := s.Drain(t.Context(), drained.id, true); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if sb := i.create(s); sb.HostID != other.id {
			t.Error("a sandbox came to the host that drains")
		}
	}
	if _, err := s.Pause(t.Context(), i.team, control.NewOp(), there.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Resume(t.Context(), i.team, control.NewOp(), there.ID); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // what a server knows of hosts is a moment old
		clones, err := s.Fork(t.Context(), i.team, control.NewOp(), there.ID, "", 1)
		if errors.Is(err, errs.ErrFailedPrecondition) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v %v", clones, err)
		}
	}
}

// TestAHostIsLostAndComesBack with what it had, but for what was destroyed meanwhile.
func TestAHostIsLostAndComesBack(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m := i.host(s, quota.Amount{Sandboxes: 10, VCPUs: 10, MemoryMiB: 1 << 12})
	runs, gone, sleeps, sleptAway, died := i.create(s), i.create(s), i.create(s), i.create(s), i.create(s)
	for _, sb := range []store.Sandbox{sleeps, sleptAway} {
		if _, err := s.Pause(t.Context(), i.team, control.NewOp(), sb.ID); err != nil {
			t.Fatal(err)
		}
	}
	m.lost(s)
	if sb := s.becomes(t, i.team, runs.ID, store.Lost); !strings.Contains(sb.Reason, m.id) || !strings.Contains(sb.Reason, "not been heard of") {
		t.Errorf("the reason is %q", sb.Reason)
	}
	s.becomes(t, i.team, gone.ID, store.Lost)
	s.becomes(t, i.team, sleeps.ID, store.Paused)
	if h, err := s.GetHost(t.Context(), m.id); err != nil || h.ReservedSandboxes != 3 {
		t.Errorf("what it may bring back is not held: %+v %v", h, err)
	}
	if err := errors.Join(s.Destroy(t.Context(), i.team, gone.ID), s.Destroy(t.Context(), i.team, sleptAway.ID)); err != nil {
		t.Fatal(err)
	}
	for _, sb := range []store.Sandbox{gone, sleptAway} {
		if sb := s.becomes(t, i.team, sb.ID, store.Stopped); !strings.Contains(sb.Reason, "when it comes back") {
			t.Errorf("the reason is %q", sb.Reason)
		}
	}
	_, err := s.Control.Create(t.Context(), i.team, control.NewOp(), control.Spec{Template: "base", OnExpiry: "destroy"})
	if !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a sandbox on a host that is lost: %v", err)
	}
	if _, err := s.Resume(t.Context(), i.team, control.NewOp(), sleeps.ID); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a resume there: %v", err)
	}
	if states := m.agent.Status().States; states[sandbox.Running] != 3 || states[sandbox.Paused] != 2 {
		t.Errorf("the host, which nobody spoke to, has %v", states)
	}
	if _, err := m.agent.Destroy(t.Context(), died.ID, "it died meanwhile"); err != nil {
		t.Fatal(err)
	}
	m.serve()
	s.until(t, m.id, store.HostUp)
	s.becomes(t, i.team, runs.ID, store.Running)
	if sb := s.becomes(t, i.team, died.ID, store.Lost); sb.WithHost || !strings.Contains(sb.Reason, "without it") {
		t.Errorf("%+v", sb)
	}
	if states := m.agent.Status().States; states[sandbox.Running] != 1 || states[sandbox.Paused] != 1 || len(states) != 2 {
		t.Errorf("the host has %v", states)
	}
	if _, err := s.Resume(t.Context(), i.team, control.NewOp(), sleeps.ID); err != nil {
		t.Error(err)
	}
	if h, err := s.GetHost(t.Context(), m.id); err != nil || h.ReservedSandboxes != 2 || h.ReservedMemoryMib != 512 {
		t.Errorf("%+v %v", h, err)
	}
	if got, want := i.states(s, runs.ID), []string{"starting", "running", "lost", "running"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// states are a sandbox's as its events tell them.
func (i *installation) states(s *server, sandbox string) []string {
	i.t.Helper()
	list, err := s.Next(i.t.Context(), i.team, sandbox, store.Place{}, 100, 5*time.Second)
	if err != nil {
		i.t.Fatal(err)
	}
	var states []string
	for _, e := range list {
		states = append(states, e.State)
	}
	return states
}

// TestNoServerStopsNothing has all servers be down for so long that each lease is over.
func TestNoServerStopsNothing(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m := i.host(s, quota.Amount{})
	sb, address := i.create(s), s.address
	s.stop()
	i.sql(`UPDATE hosts SET lease_until = now() - interval '1 hour'`)
	i.sql(`UPDATE lease_watch SET at = now() - interval '1 hour'`)
	if states := m.agent.Status().States; states[sandbox.Running] != 1 {
		t.Errorf("without a server the host has %v", states)
	}
	s = i.serve(address)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		h, err := s.GetHost(t.Context(), m.id)
		if err != nil || h.State != store.HostUp {
			t.Fatalf("%+v %v", h, err)
		}
		if time.Until(h.LeaseUntil) > 0 { // it got one anew, and reports
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("its lease is over, and stays so")
		}
	}
	if err := s.Destroy(t.Context(), i.team, sb.ID); err != nil {
		t.Error(err)
	}
	if got, want := i.states(s, sb.ID), []string{"starting", "running", "stopping", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// TestCertificatesAreReplaced on both sides before they end, while everything runs; and of a machine that was away for longer than its own.
func TestCertificatesAreReplaced(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m := i.host(s, quota.Amount{})
	for range 3 {
		i.late.Add(int64(50 * time.Minute)) // of the hour that they are good for
		m.cut()
		m.serve() // a new listener and new connections: from now on only what is replaced is good
		i.fresh(s, m)
		if err := s.Destroy(t.Context(), i.team, i.create(s).ID); err != nil {
			t.Fatal(err)
		}
	}
	m.lost(s)
	i.late.Add(int64(100 * time.Hour))
	m.serve()
	s.until(t, m.id, store.HostUp)
	i.create(s)
}

// fresh waits until the machine's certificate is one of now.
func (i *installation) fresh(s *server, m *machine) {
	i.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		is, err := member.Open(m.cfg)
		if err != nil {
			i.t.Fatal(err)
		}
		is.Close()
		if is.Ends().After(i.now().Add(55*time.Minute)) && m.answers(s) {
			break
		}
		if time.Now().After(deadline) {
			i.t.Fatal("its certificate was not replaced")
		}
	}
	s.until(i.t, m.id, store.HostUp)
}

// answers says whether the server, to which where hosts are is a moment old, reaches the machine.
func (m *machine) answers(s *server) bool {
	agent, err := s.hosts.Agent(m.t.Context(), m.id)
	if err == nil {
		_, err = agent.Host.Status(m.t.Context(), connect.NewRequest(&agentpb.StatusRequest{}))
	}
	return err == nil
}

// TestARemovedHostIsOut for good: its reports and its key are refused.
func TestARemovedHostIsOut(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m := i.host(s, quota.Amount{})
	if err := s.RemoveHost(t.Context(), m.id); err != nil {
		t.Fatal(err)
	}
	is, err := member.Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer is.Close()
	if _, err := is.Report(t.Context(), member.Reporter(m.agent, "127.0.0.1:1")); !errors.Is(err, errs.ErrPermissionDenied) {
		t.Errorf("its report: %v", err)
	}
	i.late.Add(int64(50 * time.Minute)) // and it asks for another certificate first
	if _, err := is.Report(t.Context(), member.Reporter(m.agent, "127.0.0.1:1")); !errors.Is(err, errs.ErrPermissionDenied) {
		t.Errorf("a new certificate: %v", err)
	}
	token := s.token(t, time.Hour)
	back, err := member.Join(t.Context(), m.cfg, token, "")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if back.Host() == m.id {
		t.Error("it is the same host again")
	}
}

// TestTwoServers do the same work on the same hosts. When the one ends that a host reports to, the other one at its address goes on.
func TestTwoServers(t *testing.T) {
	i := newInstallation(t)
	one, two := i.serve("127.0.0.1:0"), i.serve("127.0.0.1:0")
	a, b := i.host(one, quota.Amount{MemoryMiB: 1 << 12}), i.host(two, quota.Amount{MemoryMiB: 1 << 12})
	on := map[string]bool{}
	for n := range 4 {
		by, other := one, two
		if n%2 == 1 {
			by, other = two, one
		}
		sb := i.create(by)
		on[sb.HostID] = true
		if _, err := other.Pause(t.Context(), i.team, control.NewOp(), sb.ID); err != nil {
			t.Error(err)
		}
		if _, err := by.Resume(t.Context(), i.team, control.NewOp(), sb.ID); err != nil {
			t.Error(err)
		}
	}
	if !on[a.id] || !on[b.id] {
		t.Errorf("they are on %v alone", on)
	}
	one.stop()
	three := i.serve(one.address)
	m := i.create(three)
	a.lost(two)
	a.serve()
	three.until(t, a.id, store.HostUp)
	three.becomes(t, i.team, m.ID, store.Running)
}

// TestNothingIsDestroyedOnADoubt: what the agent can't read, and what the database does not know, stay as they are, and the others are looked at.
func TestNothingIsDestroyedOnADoubt(t *testing.T) {
	i := newInstallation(t)
	s := i.serve("127.0.0.1:0")
	m := i.host(s, quota.Amount{})
	damaged, gone, ended := i.create(s), i.create(s), i.create(s)
	foreign, _, err := m.agent.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}})
	if err != nil {
		t.Fatal(err)
	}
	m.cut()
	record := filepath.Join(m.StateDir, "sandboxes", damaged.ID, "record.json")
	kept, err := os.ReadFile(record)
	if err == nil {
		err = os.WriteFile(record, []byte("{"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.agent.Destroy(t.Context(), gone.ID, "while nobody looked"); err != nil {
		t.Fatal(err)
	}
	i.sql(`UPDATE sandboxes SET state = 'failed', reason = 'so it is told' WHERE id = $1`, ended.ID)
	m.serve()
	if sb := s.becomes(t, i.team, gone.ID, store.Stopped); sb.Reason != "its host has it no more" {
		t.Errorf("the reason is %q", sb.Reason)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := m.agent.Get(ended.ID); errors.Is(err, errs.ErrNotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what has ended is still there")
		}
	}
	if err := os.WriteFile(record, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{damaged.ID, foreign.ID} {
		if is, err := m.agent.Get(id); err != nil || is.State != sandbox.Running {
			t.Errorf("%s is %s: %v", id, is.State, err)
		}
	}
	s.becomes(t, i.team, damaged.ID, store.Running)
}
