package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/cli/transfer"
	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// agentRemote is the agent of this machine.
type agentRemote struct{ c *client.Client }

func (a agentRemote) close() { a.c.Close() }

// viewSteps are what the agent says that an operation took.
func viewSteps(phases []*pb.Phase) (steps []vmm.Step) {
	for _, p := range phases {
		steps = append(steps, vmm.Step{Name: p.GetName(), Took: time.Duration(p.GetTookMicroseconds()) * time.Microsecond})
	}
	return steps
}

func (a agentRemote) create(ctx context.Context, w wish) (sandboxView, []vmm.Step, error) {
	req := &pb.CreateRequest{Template: w.Template, Snapshot: w.Snapshot, Vcpus: uint32(min(w.VCPUs, math.MaxUint32)), MemoryMib: uint32(w.MemoryMiB),
		DiskBytes: uint64(w.DiskBytes), Internet: w.Policy.Internet, Cold: w.Cold, Stream: w.Stream, TtlSeconds: uint32(w.ttl.Seconds()), Labels: w.labels}
	if w.onExpiry == "pause" {
		req.OnExpiry = pb.Expiry_EXPIRY_PAUSE
	}
	resp, err := a.c.Sandboxes.Create(ctx, connect.NewRequest(req))
	if err != nil {
		return sandboxView{}, nil, err
	}
	return viewSandbox(resp.Msg.GetSandbox()), viewSteps(resp.Msg.GetPhases()), nil
}

func (a agentRemote) get(ctx context.Context, id string) (sandboxView, error) {
	resp, err := a.c.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: id}))
	if err != nil {
		return sandboxView{}, err
	}
	return viewSandbox(resp.Msg.GetSandbox()), nil
}

// list goes through the agent's sandboxes, page by page.
func (a agentRemote) list(ctx context.Context) iter.Seq2[sandboxView, error] {
	return pages(func(token string) ([]*pb.Sandbox, string, error) {
		resp, err := a.c.Sandboxes.List(ctx, connect.NewRequest(&pb.ListRequest{PageSize: 1000, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return resp.Msg.GetSandboxes(), resp.Msg.GetNextPageToken(), nil
	}, viewSandbox)
}

// pages goes through what is listed a page at a time.
func pages[P, V any](read func(token string) ([]P, string, error), view func(P) V) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		for token := ""; ; {
			list, next, err := read(token)
			if err != nil {
				var none V
				yield(none, err)
				return
			}
			for _, one := range list {
				if !yield(view(one), nil) {
					return
				}
			}
			if token = next; token == "" {
				return
			}
		}
	}
}

func (a agentRemote) destroy(ctx context.Context, id, reason string) error {
	_, err := a.c.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: reason}))
	return err
}

func (a agentRemote) pause(ctx context.Context, id, reason string) ([]vmm.Step, error) {
	resp, err := a.c.Sandboxes.Pause(ctx, connect.NewRequest(&pb.PauseRequest{Id: id, Reason: reason}))
	if err != nil {
		return nil, err
	}
	return viewSteps(resp.Msg.GetPhases()), nil
}

func (a agentRemote) resume(ctx context.Context, id string) ([]vmm.Step, error) {
	resp, err := a.c.Sandboxes.Resume(ctx, connect.NewRequest(&pb.ResumeRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	return viewSteps(resp.Msg.GetPhases()), nil
}

func (a agentRemote) fork(ctx context.Context, id string, count int) (list []outcomeView, _ []vmm.Step, _ error) {
	resp, err := a.c.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: id, Count: uint32(count)}))
	if err != nil {
		return nil, nil, err
	}
	for _, clone := range resp.Msg.GetClones() {
		if clone.GetSandbox() == nil {
			list = append(list, outcomeView{err: errors.New(clone.GetError())})
			continue
		}
		list = append(list, outcomeView{Name: clone.GetSandbox().GetId()})
	}
	return list, viewSteps(resp.Msg.GetPhases()), nil
}

func (a agentRemote) snapshot(ctx context.Context, id, name string) ([]vmm.Step, error) {
	resp, err := a.c.Snapshots.CreateSnapshot(ctx, connect.NewRequest(&pb.CreateSnapshotRequest{Id: id, Name: name}))
	if err != nil {
		return nil, err
	}
	return viewSteps(resp.Msg.GetPhases()), nil
}

func (a agentRemote) snapshots(ctx context.Context) iter.Seq2[snapshotView, error] {
	return pages(func(token string) ([]*pb.Snapshot, string, error) {
		resp, err := a.c.Snapshots.ListSnapshots(ctx, connect.NewRequest(&pb.ListSnapshotsRequest{PageSize: 1000, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return resp.Msg.GetSnapshots(), resp.Msg.GetNextPageToken(), nil
	}, func(s *pb.Snapshot) snapshotView { return snapshotView{Name: s.GetName(), Build: s.GetBuild()} })
}

func (a agentRemote) deleteSnapshot(ctx context.Context, name string) error {
	_, err := a.c.Snapshots.DeleteSnapshot(ctx, connect.NewRequest(&pb.DeleteSnapshotRequest{Name: name}))
	return err
}

func (a agentRemote) exec(ctx context.Context, id string, c guest.Command) (guest.Result, error) {
	req := &pb.ExecRequest{Id: id, KillOnHangup: true, Cmd: c.Cmd, Args: c.Args, Env: c.Env, Cwd: c.Cwd, User: c.User,
		TimeoutMilliseconds: uint32(c.Timeout.Milliseconds())}
	if c.Timeout > 0 {
		req.TimeoutMilliseconds = max(req.TimeoutMilliseconds, 1)
	}
	to := client.Streams{Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Signals: c.Signals}
	if c.PTY != nil {
		req.Terminal = &pb.TerminalSize{Cols: c.PTY.Cols, Rows: c.PTY.Rows}
		resize := make(chan *pb.TerminalSize)
		to.Resize = resize
		done := make(chan struct{})
		defer close(done)
		go passSizes(c.Resize, resize, done)
	}
	r, err := a.c.Exec(ctx, req, to)
	return guest.Result{ExitCode: r.ExitCode, Signal: r.Signal, Status: r.Status}, err
}

// passSizes hands the terminal's sizes on until done is closed.
func passSizes(from <-chan guest.Size, to chan<- *pb.TerminalSize, done <-chan struct{}) {
	for {
		select {
		case size := <-from:
			select {
			case to <- &pb.TerminalSize{Cols: size.Cols, Rows: size.Rows}:
			case <-done:
				return
			}
		case <-done:
			return
		}
	}
}

func (a agentRemote) templates(ctx context.Context) ([]templateView, error) {
	resp, err := a.c.Host.ListTemplates(ctx, connect.NewRequest(&pb.ListTemplatesRequest{}))
	if err != nil {
		return nil, err
	}
	list := []templateView{}
	for _, t := range resp.Msg.GetTemplates() {
		list = append(list, templateView{t.GetName(), t.GetId(), int(t.GetVcpus()), int(t.GetMemoryMib())})
	}
	return list, nil
}

func (a agentRemote) stats(ctx context.Context, ids []string) ([]statsView, error) {
	resp, err := a.c.Host.Stats(ctx, connect.NewRequest(&pb.StatsRequest{Ids: ids}))
	if err != nil {
		return nil, err
	}
	list := []statsView{}
	for _, one := range resp.Msg.GetStats() {
		list = append(list, viewStats(one))
	}
	return list, nil
}

func (a agentRemote) logs(ctx context.Context, id string, size int) (logsView, error) {
	resp, err := a.c.Host.Logs(ctx, connect.NewRequest(&pb.LogsRequest{Id: id, MaxBytes: uint32(size)}))
	if err != nil {
		return logsView{}, err
	}
	return logsView{resp.Msg.GetConsole(), resp.Msg.GetVmm()}, nil
}

func (a agentRemote) events(ctx context.Context, q eventQuery) iter.Seq2[eventView, error] {
	return func(yield func(eventView, error) bool) {
		status, err := a.c.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
		if err != nil {
			yield(eventView{}, err)
			return
		}
		req := &pb.EventsRequest{}
		if q.after != "" {
			if req.After, err = strconv.ParseUint(q.after, 10, 64); err != nil {
				yield(eventView{}, errs.Field("--after", fmt.Sprintf("%q is no event of an agent's", q.after), "give the number that an event began with"))
				return
			}
		}
		if q.past {
			req.After = 1 // before all: the agent says so, and begins with what it has
		}
		stream, err := a.c.Host.Events(ctx, connect.NewRequest(req))
		if err != nil {
			yield(eventView{}, err)
			return
		}
		defer stream.Close()
		for stream.Receive() {
			msg := stream.Msg()
			if v, wanted := viewEvent(msg, q); wanted && !yield(v, nil) {
				return
			}
			// All sandboxes' events are asked for, so that the last one there is is seen to come.
			if q.end && msg.GetGap() == nil && msg.GetId() >= status.Msg.GetLastEvent() {
				return
			}
		}
		if err := stream.Err(); err != nil {
			yield(eventView{}, err)
		}
	}
}

// viewEvent is what the agent says, and whether it was asked for.
func viewEvent(msg *pb.EventsResponse, q eventQuery) (eventView, bool) {
	v := eventView{ID: strconv.FormatUint(msg.GetId(), 10)}
	if changed := msg.GetStateChanged(); changed != nil {
		change := viewChange(changed.GetChange())
		v.Sandbox, v.State, v.Time, v.Reason = changed.GetSandbox(), change.State, change.Time, change.Reason
		return v, q.only == "" || v.Sandbox == q.only
	}
	v.Gap = msg.GetGap() != nil
	return v, v.Gap && !q.past
}

func (a agentRemote) files(id, user string) transfer.Guest { return agentFiles{a.c, id, user} }

// agentFiles are a sandbox's files through the agent.
type agentFiles struct {
	c        *client.Client
	id, user string
}

// Stat implements transfer.Guest.
func (g agentFiles) Stat(ctx context.Context, path string) (*pb.File, error) {
	resp, err := g.c.Files.StatFile(ctx, connect.NewRequest(&pb.StatFileRequest{Id: g.id, User: g.user, Path: path}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetFile(), nil
}

// List implements transfer.Guest.
func (g agentFiles) List(ctx context.Context, path string) ([]*pb.File, error) {
	resp, err := g.c.Files.ListFiles(ctx, connect.NewRequest(&pb.ListFilesRequest{Id: g.id, User: g.user, Path: path, Depth: 1}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetFiles(), nil
}

// MakeDir implements transfer.Guest.
func (g agentFiles) MakeDir(ctx context.Context, path string) error {
	_, err := g.c.Files.MakeDir(ctx, connect.NewRequest(&pb.MakeDirRequest{Id: g.id, User: g.user, Path: path}))
	return err
}

// Read implements transfer.Guest.
func (g agentFiles) Read(ctx context.Context, path string, length uint64, w io.Writer) error {
	_, err := g.c.ReadFile(ctx, &pb.ReadFileRequest{Id: g.id, User: g.user, Path: path, Length: length}, w)
	return err
}

// Write implements transfer.Guest.
func (g agentFiles) Write(ctx context.Context, path string, mode uint32, r io.Reader) error {
	_, err := g.c.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: g.id, User: g.user, Path: path, Mode: &mode}, r)
	return err
}
