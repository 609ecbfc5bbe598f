// Package hostagenttest holds whoever answers hostagent.v1 to what its proto promises of life cycles, errors, idempotency keys, events, lists and
// snapshots: the real agent and the simulated one.
//
//	hostagenttest.Run(t, func(t *testing.T) hostagenttest.Target { … })
package hostagenttest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/id"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Target is a host without sandboxes that the suite may do with as it likes. It has room for four sandboxes and a template.
type Target struct {
	*client.Client
	Template string
}

// Room is how many sandboxes a target has room for.
const Room = 4

// Run runs the suite, each test on a target of its own.
func Run(t *testing.T, open func(t *testing.T) Target) {
	t.Helper()
	for name, test := range map[string]func(*suite){
		"Life": (*suite).life, "Refusals": (*suite).refusals, "States": (*suite).states, "Room": (*suite).room, "Names": (*suite).names,
		"Keys":       (*suite).keys,
		"KeysAtOnce": (*suite).keysAtOnce, "OneAfterTheOther": (*suite).oneAfterTheOther, "Lists": (*suite).lists, "Snapshots": (*suite).snapshots,
		"Events": (*suite).events, "Gap": (*suite).gap, "Expiry": (*suite).expiry, "Host": (*suite).host,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{t, open(t)}) })
	}
}

type suite struct {
	*testing.T
	Target
}

// nobody is the id of no sandbox.
const nobody = "cl-0123456789abcdefghij"

func ask[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

// must fails the test at an error.
func must[T any](s *suite, resp *connect.Response[T], err error) *T {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
	return resp.Msg
}

// is checks that a call failed with a kind.
func (s *suite) is(what string, err, kind error) {
	s.Helper()
	if !errors.Is(err, kind) {
		s.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func (s *suite) create(req *pb.CreateRequest) *pb.Sandbox {
	s.Helper()
	if req.GetTemplate() == "" && req.GetSnapshot() == "" {
		req.Template = s.Template
	}
	resp, err := s.Sandboxes.Create(s.Context(), ask(req))
	return must(s, resp, err).GetSandbox()
}

func (s *suite) get(id string) (*pb.Sandbox, error) {
	resp, err := s.Sandboxes.Get(s.Context(), ask(&pb.GetRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetSandbox(), nil
}

// told are the states that a sandbox has gone through.
func told(sb *pb.Sandbox) []pb.State {
	var list []pb.State
	for _, c := range sb.GetChanges() {
		list = append(list, c.GetState())
	}
	return list
}

const (
	starting = pb.State_STATE_STARTING
	running  = pb.State_STATE_RUNNING
	pausing  = pb.State_STATE_PAUSING
	paused   = pb.State_STATE_PAUSED
	resuming = pb.State_STATE_RESUMING
	stopping = pb.State_STATE_STOPPING
	stopped  = pb.State_STATE_STOPPED
)

func (s *suite) life() {
	sb := s.create(&pb.CreateRequest{Internet: true, Labels: map[string]string{"a": "b"}, TtlSeconds: 3600, OnExpiry: pb.Expiry_EXPIRY_PAUSE})
	if sb.GetState() != running || sb.GetReason() == "" || sb.GetTemplate() != s.Template || sb.GetVcpus() == 0 || sb.GetMemoryMib() == 0 ||
		sb.GetDiskBytes() == 0 ||
		!sb.GetInternet() || sb.GetLabels()["a"] != "b" || sb.GetTtlSeconds() != 3600 || sb.GetOnExpiry() != pb.Expiry_EXPIRY_PAUSE ||
		sb.GetExpiresAt() == nil {
		s.Errorf("created: %v", sb)
	}
	ctx, name := s.Context(), sb.GetId()
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: name, Reason: "tired"}))
	if sb := must(s, p, err).GetSandbox(); sb.GetState() != paused || sb.GetReason() != "tired" || sb.GetExpiresAt() != nil ||
		len(p.Msg.GetPhases()) == 0 {
		s.Errorf("paused: %v", p.Msg)
	}
	r, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: name}))
	if sb := must(s, r, err).GetSandbox(); sb.GetState() != running || sb.GetExpiresAt() == nil || len(r.Msg.GetPhases()) == 0 {
		s.Errorf("resumed: %v", r.Msg)
	}
	set, err := s.Sandboxes.SetTTL(ctx, ask(&pb.SetTTLRequest{Id: name}))
	if sb := must(s, set, err).GetSandbox(); sb.GetTtlSeconds() != 0 || sb.GetExpiresAt() != nil || sb.GetOnExpiry() != pb.Expiry_EXPIRY_DESTROY {
		s.Errorf("without a TTL: %v", sb)
	}
	f, err := s.Sandboxes.Fork(ctx, ask(&pb.ForkRequest{Id: name, Count: 2}))
	for _, c := range must(s, f, err).GetClones() {
		if sb := c.GetSandbox(); sb.GetState() != running || sb.GetId() == name || sb.GetLabels()["a"] != "b" ||
			sb.GetMemoryMib() != set.Msg.GetSandbox().GetMemoryMib() {
			s.Errorf("a clone: %v", c)
		}
	}
	if len(f.Msg.GetClones()) != 2 {
		s.Errorf("%d clones", len(f.Msg.GetClones()))
	}
	got, err := s.get(name)
	if want := []pb.State{starting, running, pausing, paused, resuming, running}; err != nil || !slices.Equal(told(got), want) {
		s.Errorf("it went through %v: %v", told(got), err)
	}
	d, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: name}))
	if len(must(s, d, err).GetPhases()) == 0 {
		s.Error("no phases of a destroy")
	}
	_, err = s.get(name)
	s.is("after its end", err, errs.ErrNotFound)
	p, err = s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: f.Msg.GetClones()[0].GetSandbox().GetId()}))
	must(s, p, err)
	d, err = s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: p.Msg.GetSandbox().GetId()}))
	must(s, d, err) // also when it is paused
}

// refusals are requests that are wrong whatever the host has.
func (s *suite) refusals() {
	ctx := s.Context()
	create := func(req *pb.CreateRequest) error {
		_, err := s.Sandboxes.Create(ctx, ask(req))
		return err
	}
	s.is("no template", create(&pb.CreateRequest{}), errs.ErrInvalid)
	s.is("template and snapshot", create(&pb.CreateRequest{Template: s.Template, Snapshot: "a"}), errs.ErrInvalid)
	s.is("too many vcpus", create(&pb.CreateRequest{Template: s.Template, Vcpus: 1000}), errs.ErrInvalid)
	s.is("an id that is none", create(&pb.CreateRequest{Template: s.Template, Id: "../../etc"}), errs.ErrInvalid)
	s.is("no such template", create(&pb.CreateRequest{Template: "none"}), errs.ErrNotFound)
	s.is("no such snapshot", create(&pb.CreateRequest{Snapshot: "none"}), errs.ErrNotFound)
	var field *errs.FieldError
	if err := create(&pb.CreateRequest{Template: s.Template, MemoryMib: 1}); !errors.As(err, &field) || field.Field != "memory" || field.Fix == "" {
		s.Errorf("too little memory: %v", err)
	}
	_, err := s.Sandboxes.Get(ctx, ask(&pb.GetRequest{}))
	s.is("no id", err, errs.ErrInvalid)
	_, err = s.Sandboxes.List(ctx, ask(&pb.ListRequest{PageSize: 1001}))
	s.is("a page that is too long", err, errs.ErrInvalid)
	for what, call := range map[string]func(string) error{
		"get":     func(id string) error { _, err := s.Sandboxes.Get(ctx, ask(&pb.GetRequest{Id: id})); return err },
		"destroy": func(id string) error { _, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: id})); return err },
		"pause":   func(id string) error { _, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: id})); return err },
		"resume":  func(id string) error { _, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: id})); return err },
		"fork":    func(id string) error { _, err := s.Sandboxes.Fork(ctx, ask(&pb.ForkRequest{Id: id})); return err },
		"set-ttl": func(id string) error { _, err := s.Sandboxes.SetTTL(ctx, ask(&pb.SetTTLRequest{Id: id})); return err },
		"snapshot": func(id string) error {
			_, err := s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: id, Name: "a"}))
			return err
		},
		"logs": func(id string) error { _, err := s.Client.Host.Logs(ctx, ask(&pb.LogsRequest{Id: id})); return err },
		"stats": func(id string) error {
			_, err := s.Client.Host.Stats(ctx, ask(&pb.StatsRequest{Ids: []string{id}}))
			return err
		},
	} {
		s.is(what+" of nobody", call(nobody), errs.ErrNotFound)
		s.is(what+" of what is no id", call("cl-NO"), errs.ErrInvalid)
	}
}

// states are operations that the sandbox is in no state for.
func (s *suite) states() {
	ctx, name := s.Context(), s.create(&pb.CreateRequest{}).GetId()
	_, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: name}))
	s.is("resume of one that runs", err, errs.ErrFailedPrecondition)
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: name}))
	must(s, p, err)
	_, err = s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: name}))
	s.is("pause of one that is paused", err, errs.ErrFailedPrecondition)
	_, err = s.Sandboxes.Fork(ctx, ask(&pb.ForkRequest{Id: name}))
	s.is("fork of one that is paused", err, errs.ErrFailedPrecondition)
	_, err = s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: name, Name: "a"}))
	s.is("snapshot of one that is paused", err, errs.ErrFailedPrecondition)
	if sb, err := s.get(name); err != nil || sb.GetState() != paused {
		s.Errorf("then it is %v: %v", sb, err)
	}
}

// room fills the host.
func (s *suite) room() {
	ctx := s.Context()
	first := s.create(&pb.CreateRequest{}).GetId()
	_, err := s.Sandboxes.Fork(ctx, ask(&pb.ForkRequest{Id: first, Count: Room}))
	s.is("more clones than there is room for", err, errs.ErrResourceExhausted)
	for range Room - 1 {
		s.create(&pb.CreateRequest{})
	}
	_, err = s.Sandboxes.Create(ctx, ask(&pb.CreateRequest{Template: s.Template, Id: nobody}))
	s.is("one too many", err, errs.ErrResourceExhausted)
	_, err = s.get(nobody)
	s.is("which was not made", err, errs.ErrNotFound)
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: first}))
	must(s, p, err)
	other := s.create(&pb.CreateRequest{}).GetId() // one that is paused takes no room
	_, err = s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: first}))
	s.is("a resume that there is no room for", err, errs.ErrResourceExhausted)
	if sb, err := s.get(first); err != nil || sb.GetState() != paused {
		s.Errorf("then it is %v: %v", sb, err)
	}
	d, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: other}))
	must(s, d, err)
	r, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: first}))
	must(s, r, err)
}

// names has several ask for one id at once: one gets it.
func (s *suite) names() {
	var wg sync.WaitGroup
	outcomes := make([]error, Room)
	for i := range outcomes {
		wg.Go(func() {
			_, outcomes[i] = s.Sandboxes.Create(s.Context(), ask(&pb.CreateRequest{Template: s.Template, Id: nobody}))
		})
	}
	wg.Wait()
	made := 0
	for _, err := range outcomes {
		if err == nil {
			made++
		} else {
			s.is("an id that is taken", err, errs.ErrAlreadyExists)
		}
	}
	if _, err := s.get(nobody); err != nil || made != 1 {
		s.Errorf("%d were made, and then: %v", made, err)
	}
}

func (s *suite) keys() {
	ctx := s.Context()
	first := s.create(&pb.CreateRequest{IdempotencyKey: "k"})
	if again := s.create(&pb.CreateRequest{IdempotencyKey: "k"}); again.GetId() != first.GetId() {
		s.Error("a key made two")
	}
	_, err := s.Sandboxes.Create(ctx, ask(&pb.CreateRequest{Template: s.Template, IdempotencyKey: "k", Vcpus: 2}))
	s.is("another request with the key", err, errs.ErrInvalid)
	for range 2 {
		p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: first.GetId(), IdempotencyKey: "k"})) // the key of another call
		if must(s, p, err).GetSandbox().GetState() != paused {
			s.Error(p.Msg)
		}
	}
	_, err = s.Sandboxes.Create(ctx, ask(&pb.CreateRequest{Snapshot: "later", IdempotencyKey: "l"}))
	s.is("a snapshot that is not there", err, errs.ErrNotFound)
	r, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: first.GetId()}))
	must(s, r, err)
	c, err := s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: first.GetId(), Name: "later"}))
	must(s, c, err)
	s.create(&pb.CreateRequest{Snapshot: "later", IdempotencyKey: "l"}) // what failed is done anew
	for range 2 {
		d, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: first.GetId(), IdempotencyKey: "k"}))
		must(s, d, err)
	}
}

func (s *suite) keysAtOnce() {
	ids := make([]string, 10)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			resp, err := s.Sandboxes.Create(s.Context(), ask(&pb.CreateRequest{Template: s.Template, IdempotencyKey: "k"}))
			if err != nil {
				s.Error(err)
				return
			}
			ids[i] = resp.Msg.GetSandbox().GetId()
		})
	}
	wg.Wait()
	list, err := s.Sandboxes.List(s.Context(), ask(&pb.ListRequest{}))
	if n := len(must(s, list, err).GetSandboxes()); n != 1 || len(slices.Compact(ids)) != 1 {
		s.Errorf("%d were made: %q", n, ids)
	}
}

// oneAfterTheOther pauses and destroys a sandbox from several sides at once: each operation finds it whole.
func (s *suite) oneAfterTheOther() {
	name := s.create(&pb.CreateRequest{}).GetId()
	var wg sync.WaitGroup
	outcomes := make([]error, 6)
	for i := range outcomes {
		wg.Go(func() {
			if i == 3 {
				_, outcomes[i] = s.Sandboxes.Destroy(s.Context(), ask(&pb.DestroyRequest{Id: name}))
				return
			}
			_, outcomes[i] = s.Sandboxes.Pause(s.Context(), ask(&pb.PauseRequest{Id: name}))
		})
	}
	wg.Wait()
	done := 0
	for i, err := range outcomes {
		switch {
		case err == nil && i != 3:
			done++
		case err != nil && (i == 3 || !errors.Is(err, errs.ErrFailedPrecondition) && !errors.Is(err, errs.ErrNotFound)):
			s.Errorf("%d: %v", i, err)
		}
	}
	if _, err := s.get(name); !errors.Is(err, errs.ErrNotFound) || done > 1 {
		s.Errorf("%d pauses were done, and then: %v", done, err)
	}
}

func (s *suite) lists() {
	ctx := s.Context()
	var ids []string
	for i := range Room {
		ids = append(ids, s.create(&pb.CreateRequest{Id: id.New(), Labels: map[string]string{"odd": []string{"no", "yes"}[i%2], "i": "0"}}).GetId())
	}
	odd := []string{ids[1], ids[3]}
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: ids[3]}))
	must(s, p, err)
	slices.Sort(ids)
	slices.Sort(odd)
	all := func(req *pb.ListRequest) (got []string, pages int) {
		for {
			resp, err := s.Sandboxes.List(ctx, ask(req))
			for _, sb := range must(s, resp, err).GetSandboxes() {
				got = append(got, sb.GetId())
			}
			pages++
			if req.PageToken = resp.Msg.GetNextPageToken(); req.GetPageToken() == "" {
				return got, pages
			}
		}
	}
	for what, c := range map[string]struct {
		req   *pb.ListRequest
		want  []string
		pages int
	}{
		"all": {&pb.ListRequest{}, ids, 1}, "in two pages": {&pb.ListRequest{PageSize: 2}, ids, 2},
		"in pages of three": {&pb.ListRequest{PageSize: 3}, ids, 2},
		"by label":          {&pb.ListRequest{Labels: map[string]string{"odd": "yes"}, PageSize: 1}, odd, 2},
		"by labels":         {&pb.ListRequest{Labels: map[string]string{"odd": "yes", "i": "1"}}, nil, 1},
		"by state":          {&pb.ListRequest{States: []pb.State{paused}}, []string{p.Msg.GetSandbox().GetId()}, 1},
		"by states":         {&pb.ListRequest{States: []pb.State{paused, running}}, ids, 1},
		"of nothing":        {&pb.ListRequest{States: []pb.State{starting}}, nil, 1},
	} {
		if got, pages := all(c.req); !slices.Equal(got, c.want) || pages != c.pages {
			s.Errorf("%s: %d pages with %q, want %d with %q", what, pages, got, c.pages, c.want)
		}
	}
}

func (s *suite) snapshots() {
	ctx, name := s.Context(), s.create(&pb.CreateRequest{}).GetId()
	for _, snap := range []string{"b", "a", "c"} {
		resp, err := s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: name, Name: snap}))
		if m := must(s, resp, err); m.GetSnapshot().GetBuild() == "" || m.GetSnapshot().GetName() != snap || len(m.GetPhases()) == 0 {
			s.Error(m)
		}
	}
	if sb, err := s.get(name); err != nil || sb.GetState() != running {
		s.Errorf("it did not run on: %v %v", sb, err)
	}
	_, err := s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: name, Name: "a"}))
	s.is("a name that is taken", err, errs.ErrAlreadyExists)
	_, err = s.Snapshots.CreateSnapshot(ctx, ask(&pb.CreateSnapshotRequest{Id: name, Name: "No Name"}))
	s.is("what can't be a name", err, errs.ErrInvalid)
	list, err := s.Snapshots.ListSnapshots(ctx, ask(&pb.ListSnapshotsRequest{PageSize: 2}))
	if m := must(s, list, err); len(m.GetSnapshots()) != 2 || m.GetSnapshots()[0].GetName() != "a" || m.GetNextPageToken() != "b" {
		s.Error(m)
	}
	list, err = s.Snapshots.ListSnapshots(ctx, ask(&pb.ListSnapshotsRequest{PageToken: "b"}))
	if m := must(s, list, err); len(m.GetSnapshots()) != 1 || m.GetNextPageToken() != "" {
		s.Error(m)
	}
	from := s.create(&pb.CreateRequest{Snapshot: "a"})
	if from.GetSnapshot() != "a" || from.GetTemplate() != "" || from.GetMemoryMib() == 0 {
		s.Error(from)
	}
	_, err = s.Snapshots.DeleteSnapshot(ctx, ask(&pb.DeleteSnapshotRequest{Name: "a"}))
	s.is("one that is used", err, errs.ErrFailedPrecondition)
	d, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: from.GetId()}))
	must(s, d, err)
	del, err := s.Snapshots.DeleteSnapshot(ctx, ask(&pb.DeleteSnapshotRequest{Name: "a"}))
	must(s, del, err)
	_, err = s.Snapshots.DeleteSnapshot(ctx, ask(&pb.DeleteSnapshotRequest{Name: "a"}))
	s.is("one that is gone", err, errs.ErrNotFound)
}

// follow opens a stream of events, which begins with a keep-alive.
func (s *suite) follow(ctx context.Context, req *pb.EventsRequest) (*connect.ServerStreamForClient[pb.EventsResponse], uint64) {
	s.Helper()
	stream, err := s.Client.Host.Events(ctx, ask(req))
	if err != nil || !stream.Receive() || stream.Msg().GetKeepAlive() == nil {
		s.Fatal(err, stream.Err())
	}
	return stream, stream.Msg().GetId()
}

// expect reads changes of a sandbox, and returns the id of the last.
func (s *suite) expect(stream *connect.ServerStreamForClient[pb.EventsResponse], sandbox string, at uint64, states ...pb.State) uint64 {
	s.Helper()
	for _, want := range states {
		for {
			if !stream.Receive() {
				s.Fatal(stream.Err())
			}
			if stream.Msg().GetKeepAlive() == nil {
				break
			}
		}
		got := stream.Msg().GetStateChanged()
		if got.GetSandbox() != sandbox || got.GetChange().GetState() != want || got.GetChange().GetReason() == "" || stream.Msg().GetId() <= at {
			s.Fatalf("got %v after %d, want %v of %s", stream.Msg(), at, want, sandbox)
		}
		at = stream.Msg().GetId()
	}
	return at
}

func (s *suite) events() {
	s.create(&pb.CreateRequest{}) // a host may make something once at its first start
	ctx := s.Context()
	stream, at := s.follow(ctx, &pb.EventsRequest{})
	defer stream.Close()
	name := s.create(&pb.CreateRequest{}).GetId()
	began := s.expect(stream, name, at, starting, running)
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: name}))
	must(s, p, err)
	r, err := s.Sandboxes.Resume(ctx, ask(&pb.ResumeRequest{Id: name}))
	must(s, r, err)
	at = s.expect(stream, name, began, pausing, paused, resuming, running)
	other := s.create(&pb.CreateRequest{}).GetId()
	d, err := s.Sandboxes.Destroy(ctx, ask(&pb.DestroyRequest{Id: name, Reason: "unwanted"}))
	must(s, d, err)
	at = s.expect(stream, other, at, starting, running)
	s.expect(stream, name, at, stopping, stopped)
	if reason := stream.Msg().GetStateChanged().GetChange().GetReason(); reason != "unwanted" {
		s.Errorf("it stopped because %q", reason)
	}
	// From a place, and of one sandbox alone.
	again, _ := s.follow(ctx, &pb.EventsRequest{After: began, Id: name})
	defer again.Close()
	s.expect(again, name, began, pausing, paused, resuming, running, stopping, stopped)
}

// gap asks for what is kept no longer.
func (s *suite) gap() {
	s.create(&pb.CreateRequest{})
	stream, _ := s.follow(s.Context(), &pb.EventsRequest{After: 5})
	defer stream.Close()
	if !stream.Receive() || stream.Msg().GetGap() == nil {
		s.Error(stream.Msg(), stream.Err())
	}
	if !stream.Receive() || stream.Msg().GetStateChanged() == nil {
		s.Error(stream.Msg(), stream.Err())
	}
}

// expiry waits for times to live to be over.
func (s *suite) expiry() {
	s.create(&pb.CreateRequest{})
	stream, at := s.follow(s.Context(), &pb.EventsRequest{})
	defer stream.Close()
	destroyed := s.create(&pb.CreateRequest{TtlSeconds: 1}).GetId()
	at = s.expect(stream, destroyed, at, starting, running, stopping, stopped)
	_, err := s.get(destroyed)
	s.is("one whose time is over", err, errs.ErrNotFound)
	kept := s.create(&pb.CreateRequest{TtlSeconds: 1, OnExpiry: pb.Expiry_EXPIRY_PAUSE}).GetId()
	s.expect(stream, kept, at, starting, running, pausing, paused)
	if sb, err := s.get(kept); err != nil || sb.GetState() != paused {
		s.Error(sb, err)
	}
}

func (s *suite) host() {
	ctx := s.Context()
	name := s.create(&pb.CreateRequest{}).GetId()
	asleep := s.create(&pb.CreateRequest{}).GetId()
	p, err := s.Sandboxes.Pause(ctx, ask(&pb.PauseRequest{Id: asleep}))
	must(s, p, err)
	status, err := s.Client.Host.Status(ctx, ask(&pb.StatusRequest{}))
	m := must(s, status, err)
	if m.GetStates()["running"] != 1 || m.GetStates()["paused"] != 1 || m.GetUsed().GetSandboxes() != 1 || m.GetUsed().GetMemoryMib() == 0 ||
		m.GetVersion() == "" ||
		m.GetBoot() == "" || m.GetLimits().GetSandboxes() != Room || m.GetLastEvent() == 0 || time.Since(m.GetStartedAt().AsTime()) > time.Hour {
		s.Error(m)
	}
	templates, err := s.Client.Host.ListTemplates(ctx, ask(&pb.ListTemplatesRequest{}))
	if list := must(s, templates, err).GetTemplates(); len(list) != 1 || list[0].GetName() != s.Template || list[0].GetVcpus() == 0 ||
		list[0].GetId() == "" {
		s.Error(list)
	}
	for _, ids := range [][]string{nil, {name, asleep}} { // one that is paused takes nothing
		stats, err := s.Client.Host.Stats(ctx, ask(&pb.StatsRequest{Ids: ids}))
		if list := must(s, stats, err).GetStats(); len(list) != 1 || list[0].GetId() != name || list[0].GetTime() == nil {
			s.Error(list)
		}
	}
	if metrics, err := s.Client.Host.Metrics(ctx, ask(&pb.MetricsRequest{})); must(s, metrics, err).GetText() == "" {
		s.Error("no metrics")
	}
}
