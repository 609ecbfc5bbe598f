package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const nobody = "cl-0123456789abcdefghij"

func TestALifeOverTheWire(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	made, err := w.Sandboxes.Create(ctx, connect.NewRequest(&pb.CreateRequest{Template: "base", Internet: true,
		Labels: map[string]string{"a": "b"}, TtlSeconds: 3600, OnExpiry: pb.Expiry_EXPIRY_PAUSE}))
	if err != nil {
		t.Fatal(err)
	}
	sb := made.Msg.GetSandbox()
	if sb.GetState() != pb.State_STATE_RUNNING || sb.GetReason() == "" || sb.GetVcpus() != 1 || sb.GetMemoryMib() != 256 || !sb.GetInternet() ||
		sb.GetLabels()["a"] != "b" || sb.GetOnExpiry() != pb.Expiry_EXPIRY_PAUSE || sb.GetExpiresAt() == nil || len(made.Msg.GetPhases()) < 4 {
		t.Errorf("%v", made.Msg)
	}
	id := sb.GetId()
	paused, err := w.Sandboxes.Pause(ctx, connect.NewRequest(&pb.PauseRequest{Id: id, Reason: "tired"}))
	if err != nil || paused.Msg.GetSandbox().GetReason() != "tired" || paused.Msg.GetSandbox().GetState() != pb.State_STATE_PAUSED {
		t.Error(paused, err)
	}
	if r, err := w.Sandboxes.Resume(ctx, connect.NewRequest(&pb.ResumeRequest{Id: id})); err != nil || len(r.Msg.GetPhases()) == 0 {
		t.Error(r, err)
	}
	set, err := w.Sandboxes.SetTTL(ctx, connect.NewRequest(&pb.SetTTLRequest{Id: id}))
	if err != nil || set.Msg.GetSandbox().GetTtlSeconds() != 0 || set.Msg.GetSandbox().GetExpiresAt() != nil {
		t.Error(set, err)
	}
	forked, err := w.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: id, Count: 2}))
	if err != nil || len(forked.Msg.GetClones()) != 2 || forked.Msg.GetClones()[1].GetSandbox().GetLabels()["a"] != "b" {
		t.Fatal(forked, err)
	}
	named := &pb.ForkRequest{Id: id, Ids: []string{"cl-0123456789abcdefghij"}, IdempotencyKey: "named"}
	if forked, err := w.Sandboxes.Fork(ctx, connect.NewRequest(named)); err != nil || forked.Msg.GetClones()[0].GetSandbox().GetId() != named.GetIds()[0] {
		t.Error(forked, err)
	}
	if _, err := w.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: named.GetIds()[0]})); err != nil {
		t.Error(err)
	}
	odd := &pb.ForkRequest{Id: id, Ids: []string{"cl-UP"}}
	if _, err := w.Sandboxes.Fork(ctx, connect.NewRequest(odd)); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
	inUse := connect.NewRequest(&pb.DeleteTemplateRequest{Name: "base"})
	if _, err := w.Client.Host.DeleteTemplate(ctx, inUse); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if got, err := w.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: id})); err != nil || len(got.Msg.GetSandbox().GetChanges()) != 6 {
		t.Error(got, err)
	}
	first, err := w.Sandboxes.List(ctx, connect.NewRequest(&pb.ListRequest{PageSize: 2}))
	if err != nil || len(first.Msg.GetSandboxes()) != 2 || first.Msg.GetNextPageToken() == "" {
		t.Fatal(first, err)
	}
	rest, err := w.Sandboxes.List(ctx, connect.NewRequest(&pb.ListRequest{PageSize: 2, PageToken: first.Msg.GetNextPageToken(),
		States: []pb.State{pb.State_STATE_RUNNING}}))
	if err != nil || len(rest.Msg.GetSandboxes()) != 1 || rest.Msg.GetNextPageToken() != "" {
		t.Error(rest, err)
	}
	if d, err := w.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: id})); err != nil || len(d.Msg.GetPhases()) != 1 {
		t.Error(d, err)
	}
}

// TestACallerNamesTheSandbox: of several that ask for one id at once, one gets it.
func TestACallerNamesTheSandbox(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 2})
	var wg sync.WaitGroup
	outcomes := make([]error, 4)
	for i := range outcomes {
		wg.Go(func() {
			_, outcomes[i] = w.Sandboxes.Create(t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base", Id: nobody}))
		})
	}
	wg.Wait()
	made := 0
	for _, err := range outcomes {
		if err == nil {
			made++
		} else if !errors.Is(err, errs.ErrAlreadyExists) {
			t.Error(err)
		}
	}
	if _, err := w.Sandboxes.Get(t.Context(), connect.NewRequest(&pb.GetRequest{Id: nobody})); err != nil || made != 1 {
		t.Errorf("%d were made, and then: %v", made, err)
	}
	w.create() // the ones that were refused have taken no room
}

func TestSnapshots(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create()
	for _, name := range []string{"b", "a", "c"} {
		resp, err := w.Snapshots.CreateSnapshot(t.Context(), connect.NewRequest(&pb.CreateSnapshotRequest{Id: id, Name: name}))
		if err != nil || resp.Msg.GetSnapshot().GetBuild() == "" || len(resp.Msg.GetPhases()) == 0 {
			t.Fatal(resp, err)
		}
	}
	page, err := w.Snapshots.ListSnapshots(t.Context(), connect.NewRequest(&pb.ListSnapshotsRequest{PageSize: 2}))
	if err != nil || len(page.Msg.GetSnapshots()) != 2 || page.Msg.GetSnapshots()[0].GetName() != "a" || page.Msg.GetNextPageToken() != "b" {
		t.Fatal(page, err)
	}
	page, err = w.Snapshots.ListSnapshots(t.Context(), connect.NewRequest(&pb.ListSnapshotsRequest{PageToken: "b"}))
	if err != nil || len(page.Msg.GetSnapshots()) != 1 || page.Msg.GetNextPageToken() != "" {
		t.Error(page, err)
	}
	for range 2 { // the key makes the second one the first
		if _, err := w.Snapshots.DeleteSnapshot(t.Context(), connect.NewRequest(&pb.DeleteSnapshotRequest{Name: "a", IdempotencyKey: "k"})); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryKindCrosses makes each kind of error on the agent's side and finds it on the caller's.
func TestEveryKindCrosses(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 2})
	id := w.create()
	ctx := t.Context()
	create := func(req *pb.CreateRequest) error {
		_, err := w.Sandboxes.Create(ctx, connect.NewRequest(req))
		return err
	}
	snapshot := func(name string) error {
		_, err := w.Snapshots.CreateSnapshot(ctx, connect.NewRequest(&pb.CreateSnapshotRequest{Id: id, Name: name}))
		return err
	}
	if err := snapshot("taken"); err != nil {
		t.Fatal(err)
	}
	_, missing := w.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: nobody}))
	_, running := w.Sandboxes.Resume(ctx, connect.NewRequest(&pb.ResumeRequest{Id: id}))
	_, full := w.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: id, Count: 2}))
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"no such sandbox", missing, errs.ErrNotFound}, {"no such template", create(&pb.CreateRequest{Template: "none"}), errs.ErrNotFound},
		{"it runs", running, errs.ErrFailedPrecondition}, {"no room", full, errs.ErrResourceExhausted}, {"name taken", snapshot("taken"), errs.ErrAlreadyExists},
		{"bound", create(&pb.CreateRequest{Template: "base", Vcpus: 1000}), errs.ErrInvalid},
		{"field", create(&pb.CreateRequest{Template: "base", MemoryMib: 1}), errs.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	var fe *errs.FieldError
	if err := create(&pb.CreateRequest{Template: "base", MemoryMib: 1}); !errors.As(err, &fe) || fe.Field != "memory" || fe.Fix == "" {
		t.Errorf("field and fix: %v", err)
	}
	if err := snapshot("No Name"); !errors.As(err, &fe) || fe.Field != "snapshot" {
		t.Errorf("field and fix: %v", err)
	}
	if err := probe(ctx, w.socket+".none"); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("no agent: %v", err)
	}
}

// TestAConcurrentDuplicateMakesOne asks ten times with one key.
func TestAConcurrentDuplicateMakesOne(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ids := make([]string, 10)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			resp, err := w.Sandboxes.Create(t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base", IdempotencyKey: "k"}))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = resp.Msg.GetSandbox().GetId()
		})
	}
	wg.Wait()
	list, err := w.Sandboxes.List(t.Context(), connect.NewRequest(&pb.ListRequest{}))
	if err != nil || len(list.Msg.GetSandboxes()) != 1 {
		t.Fatal(list, err)
	}
	for _, id := range ids {
		if id != list.Msg.GetSandboxes()[0].GetId() {
			t.Errorf("an answer tells of %q", id)
		}
	}
	if _, err := w.Sandboxes.Create(t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base", IdempotencyKey: "k", Vcpus: 2})); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("another request with the key: %v", err)
	}
	if _, err := w.Sandboxes.Destroy(t.Context(), connect.NewRequest(&pb.DestroyRequest{Id: ids[0], IdempotencyKey: "k"})); err != nil {
		t.Errorf("another call with the key: %v", err)
	}
}

// TestACallerThatHangsUp leaves in the midst of a create: it comes to its end, and the key finds it.
func TestACallerThatHangsUp(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	w.create() // the warm build
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	w.VMM.OnStart = func(context.Context, vmm.Config) error { entered <- struct{}{}; <-hold; return nil }
	ctx, hangUp := context.WithCancel(t.Context())
	left := make(chan error, 1)
	req := &pb.CreateRequest{Template: "base", IdempotencyKey: "k"}
	go func() { _, err := w.Sandboxes.Create(ctx, connect.NewRequest(req)); left <- err }()
	<-entered
	hangUp()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(hold)
	resp, err := w.Sandboxes.Create(t.Context(), connect.NewRequest(req))
	if err != nil || resp.Msg.GetSandbox().GetState() != pb.State_STATE_RUNNING {
		t.Fatal(resp, err)
	}
	if list, err := w.Sandboxes.List(t.Context(), connect.NewRequest(&pb.ListRequest{})); err != nil || len(list.Msg.GetSandboxes()) != 2 {
		t.Error(list, err)
	}
}

func TestPlainJSON(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create()
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
	}}}
	defer h.CloseIdleConnections()
	post := func(body string) (int, string) {
		resp, err := h.Post("http://agent/hostagent.v1.SandboxesService/Get", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if code, text := post(fmt.Sprintf(`{"id":%q}`, id)); code != 200 || !strings.Contains(text, `"state":"STATE_RUNNING"`) {
		t.Error(code, text)
	}
	if code, text := post(`{"id":"x"}`); code != 400 || !strings.Contains(text, `"fix":"give the id of a sandbox`) {
		t.Error(code, text)
	}
}

func TestTLSBothWays(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	for name, c := range map[string]struct {
		config *tls.Config
		ok     bool
	}{
		"a caller":                {&tls.Config{RootCAs: w.certs.pool, Certificates: []tls.Certificate{w.certs.caller}}, true},
		"nobody":                  {&tls.Config{RootCAs: w.certs.pool}, false},
		"a stranger":              {&tls.Config{RootCAs: w.certs.pool, Certificates: []tls.Certificate{w.certs.stranger}}, false},
		"who distrusts the agent": {&tls.Config{Certificates: []tls.Certificate{w.certs.caller}}, false},
	} {
		remote := client.TLS(w.address, c.config)
		_, err := remote.Host.Status(t.Context(), connect.NewRequest(&pb.StatusRequest{}))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok {
			if r, err := remote.Exec(t.Context(), &pb.ExecRequest{Id: w.create(), Cmd: "x"}, client.Streams{Stdin: strings.NewReader("x")}); err != nil || r.ExitCode != 3 {
				t.Error(r, err)
			}
		}
		remote.Close()
	}
}

func TestTheSocketIsItsOwners(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	if info, err := os.Stat(w.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rpc.Unix(path); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("a file was replaced: %v", err)
	}
}

// probe asks the agent behind a socket for its status.
func probe(ctx context.Context, socket string) error {
	c := client.Unix(socket)
	defer c.Close()
	_, err := c.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
	return err
}
