package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/version"
	"wrenn.dev/wrenn/internal/vmm"
)

// serverRemote is a server, asked over the REST API.
type serverRemote struct {
	c *client.Client
	// at is how the server was named, for errors that it can mend.
	at *target
	// names are those of snapshots, by their ids, once they were needed.
	names map[string]string
}

func newServerRemote(at *target) (*serverRemote, error) {
	c, err := client.New(at.URL, client.WithAPIKey(at.Key), client.WithUserAgent("wrenn/"+version.Version))
	if err != nil {
		var e *client.Error
		if errors.As(err, &e) && e.Field == "key" {
			return nil, errs.Field("WRENN_API_KEY", e.Message, e.Fix)
		}
		return nil, errs.Field(at.source, fmt.Sprintf("%.200q is no server's address", at.URL), "give one such as https://wrenn.example.org")
	}
	return &serverRemote{c: c, at: at}, nil
}

func (r *serverRemote) close() { r.c.Close() }

// serverKinds are the kinds of error that package client has, and those that they are here.
var serverKinds = []struct{ theirs, ours error }{
	{client.ErrInvalid, errs.ErrInvalid}, {client.ErrTooLarge, errs.ErrInvalid}, {client.ErrNotFound, errs.ErrNotFound}, {client.ErrAlreadyExists, errs.ErrAlreadyExists},
	{client.ErrFailedPrecondition, errs.ErrFailedPrecondition}, {client.ErrResourceExhausted, errs.ErrResourceExhausted},
	{client.ErrUnavailable, errs.ErrUnavailable}, {client.ErrPermissionDenied, errs.ErrPermissionDenied},
	{client.ErrUnauthenticated, errs.ErrPermissionDenied}, {client.ErrTimeout, context.DeadlineExceeded}, {client.ErrDataLoss, errs.ErrCorrupt},
}

// serverFields are the API's names of fields, and the flags that they come from.
var serverFields = map[string]string{"template": "--template", "snapshot": "--snapshot", "vcpus": "--vcpus", "memory_mib": "--memory", "disk_bytes": "--disk",
	"ttl_seconds": "--ttl", "on_expiry": "--on-expiry", "metadata": "--label", "user": "--user", "cwd": "--cwd", "env": "--env", "Last-Event-ID": "--after", "count": "--count"}

// serverError is what a server said, with the kind that it is here.
type serverError struct {
	text        string
	kind, cause error
}

// Error implements error.
func (e *serverError) Error() string { return e.text }

// Unwrap makes errors.Is see both kinds.
func (e *serverError) Unwrap() []error { return []error{e.kind, e.cause} }

// told is an error of the client as the command line has it.
func (r *serverRemote) told(err error) error {
	var e *client.Error
	if err == nil {
		return nil
	}
	if errors.As(err, &e) && errors.Is(err, client.ErrInvalid) && e.Field != "" {
		field := e.Field
		if flag := serverFields[field]; flag != "" {
			field = flag
		}
		return errs.Field(field, e.Message, e.Fix)
	}
	text := err.Error()
	switch {
	case errors.Is(err, client.ErrUnauthenticated):
		text += fmt.Sprintf(" (at %s, named by %s; 'wrenn login' stores a good key)", r.at.URL, r.at.source)
	case errors.Is(err, client.ErrUnavailable) && e == nil:
		text += fmt.Sprintf(" (at %s, named by %s)", r.at.URL, r.at.source)
	case errors.Is(err, client.ErrInternal) && e != nil && e.RequestID != "":
		text += " (request " + e.RequestID + ")"
	}
	for _, k := range serverKinds {
		if errors.Is(err, k.theirs) {
			return &serverError{text, k.ours, err}
		}
	}
	return err
}

// cant is what a server does not do.
func (r *serverRemote) cant(what, fix string) error {
	return fmt.Errorf("a server does not %s: %s: %w", what, fix, errs.ErrFailedPrecondition)
}

func (r *serverRemote) create(ctx context.Context, w wish) (sandboxView, []vmm.Step, error) {
	for flag, given := range map[string]bool{"--cold": w.Cold, "--stream": w.Stream, "--console": w.Console} {
		if given {
			return sandboxView{}, nil, errs.Field(flag, "a server does not take it", "leave it out, or give --context local on the sandbox's host")
		}
	}
	sb, err := r.c.Sandboxes.Create(ctx, client.CreateOptions{Template: w.Template, Snapshot: w.Snapshot, VCPUs: w.VCPUs, MemoryMiB: w.MemoryMiB,
		DiskBytes: w.DiskBytes, NoInternet: !w.Policy.Internet, Metadata: w.labels, TTL: w.ttl, OnExpiry: client.OnExpiry(w.onExpiry)})
	if err != nil {
		return sandboxView{}, nil, r.told(err)
	}
	v, err := r.view(ctx, sb)
	return v, nil, err
}

// view is what the server says of a sandbox. It tells of the last change alone.
func (r *serverRemote) view(ctx context.Context, sb *client.Sandbox) (sandboxView, error) {
	v := sandboxView{ID: sb.ID, State: string(sb.State), Reason: sb.Reason, Template: sb.Template, VCPUs: sb.VCPUs, MemoryMiB: sb.MemoryMiB,
		DiskBytes: sb.DiskBytes, Internet: sb.Internet, Labels: sb.Metadata, TTLSeconds: int(sb.TTL.Seconds()),
		Changes: []changeView{{string(sb.State), sb.ChangedAt, sb.Reason}}}
	if sb.TTL > 0 {
		v.OnExpiry = string(sb.OnExpiry)
	}
	if sb.SnapshotID == "" {
		return v, nil
	}
	name, err := r.snapshotName(ctx, sb.SnapshotID)
	v.Template, v.Snapshot = "", name
	return v, err
}

// snapshotName is the name of a snapshot. It is there as long as a sandbox is that began from it.
func (r *serverRemote) snapshotName(ctx context.Context, id string) (string, error) {
	if r.names == nil {
		r.names = map[string]string{}
		for s, err := range r.c.Snapshots.List(ctx) {
			if err != nil {
				return "", r.told(err)
			}
			r.names[s.ID] = s.Name
		}
	}
	if name := r.names[id]; name != "" {
		return name, nil
	}
	return id, nil
}

func (r *serverRemote) get(ctx context.Context, id string) (sandboxView, error) {
	sb, err := r.c.Sandboxes.Get(ctx, id)
	if err != nil {
		return sandboxView{}, r.told(err)
	}
	return r.view(ctx, sb)
}

func (r *serverRemote) list(ctx context.Context) iter.Seq2[sandboxView, error] {
	return func(yield func(sandboxView, error) bool) {
		for sb, err := range r.c.Sandboxes.List(ctx, client.ListOptions{PageSize: 1000}) {
			var v sandboxView
			if err == nil {
				v, err = r.view(ctx, sb)
			}
			if !yield(v, r.told(err)) || err != nil {
				return
			}
		}
	}
}

func (r *serverRemote) destroy(ctx context.Context, id, _ string) error {
	sb, err := r.c.Sandboxes.Get(ctx, id)
	if err == nil && sb.State.Ended() {
		err = fmt.Errorf("the sandbox %s is %s already: %w", id, sb.State, errs.ErrNotFound)
	}
	if err == nil {
		err = sb.Destroy(ctx)
	}
	return r.told(err)
}

func (r *serverRemote) pause(ctx context.Context, id, _ string) ([]vmm.Step, error) {
	_, err := r.c.Sandboxes.Of(id).Pause(ctx)
	return nil, r.told(err)
}

func (r *serverRemote) resume(ctx context.Context, id string) ([]vmm.Step, error) {
	_, err := r.c.Sandboxes.Of(id).Resume(ctx)
	return nil, r.told(err)
}

func (r *serverRemote) fork(ctx context.Context, id string, count int) (list []outcomeView, _ []vmm.Step, _ error) {
	clones, err := r.c.Sandboxes.Of(id).Fork(ctx, count)
	if err != nil {
		return nil, nil, r.told(err)
	}
	for _, clone := range clones {
		if clone.Err != nil {
			list = append(list, outcomeView{err: clone.Err})
			continue
		}
		list = append(list, outcomeView{Name: clone.Sandbox.ID})
	}
	return list, nil, nil
}

func (r *serverRemote) snapshot(ctx context.Context, id, name string) ([]vmm.Step, error) {
	_, err := r.c.Sandboxes.Of(id).Snapshot(ctx, name)
	return nil, r.told(err)
}

func (r *serverRemote) snapshots(ctx context.Context) iter.Seq2[snapshotView, error] {
	return func(yield func(snapshotView, error) bool) {
		for s, err := range r.c.Snapshots.List(ctx) {
			if err != nil {
				yield(snapshotView{}, r.told(err))
				return
			}
			if !yield(snapshotView{Name: s.Name, Sandbox: s.SandboxID, Template: s.Template, CreatedAt: &s.CreatedAt}, nil) {
				return
			}
		}
	}
}

func (r *serverRemote) deleteSnapshot(ctx context.Context, name string) error {
	return r.told(r.c.Snapshots.Delete(ctx, name))
}

func (r *serverRemote) templates(ctx context.Context) ([]templateView, error) {
	all, err := r.c.Templates.List(ctx)
	if err != nil {
		return nil, r.told(err)
	}
	list := []templateView{}
	for _, t := range all {
		list = append(list, templateView{t.Name, t.ID, t.VCPUs, t.MemoryMiB})
	}
	return list, nil
}

func (r *serverRemote) events(ctx context.Context, q eventQuery) iter.Seq2[eventView, error] {
	o := client.EventOptions{Sandbox: q.only, After: q.after, NoFollow: q.end}
	if q.past {
		o.After = client.FromOldest
	}
	return func(yield func(eventView, error) bool) {
		for e, err := range r.c.Events(ctx, o) {
			if err != nil {
				yield(eventView{}, r.told(err))
				return
			}
			if !yield(eventView{ID: e.ID, Sandbox: e.SandboxID, State: string(e.State), Time: e.At, Reason: e.Reason}, nil) {
				return
			}
		}
	}
}

func (r *serverRemote) logs(context.Context, string, int) (logsView, error) {
	return logsView{}, r.cant("show logs", "run 'wrenn logs --context local' on the sandbox's host")
}

// stats are asked for one sandbox after another; of all, one that has stopped running meanwhile is left out, as an agent leaves it out.
func (r *serverRemote) stats(ctx context.Context, ids []string) ([]statsView, error) {
	named := len(ids) > 0
	if !named {
		for sb, err := range r.c.Sandboxes.List(ctx, client.ListOptions{States: []client.State{client.Running}, PageSize: 1000}) {
			if err != nil {
				return nil, r.told(err)
			}
			ids = append(ids, sb.ID)
		}
	}
	list := []statsView{}
	for _, id := range ids {
		m, err := r.c.Sandboxes.Of(id).Metrics(ctx)
		switch {
		case !named && (errors.Is(err, client.ErrFailedPrecondition) || errors.Is(err, client.ErrNotFound)):
			continue
		case err != nil:
			return nil, r.told(err)
		}
		list = append(list, viewMetrics(id, m))
	}
	return list, nil
}

// viewMetrics is what a server says. It does not tell of pages.
func viewMetrics(id string, m *client.Metrics) statsView {
	v := statsView{ID: id, Time: m.At, CPUMicroseconds: uint64(m.CPU.Microseconds()), MemoryBytes: uint64(m.MemoryBytes), MemoryLimitBytes: uint64(m.MemoryLimitBytes),
		DiskUsedBytes: uint64(m.DiskUsedBytes), DiskCapacityBytes: uint64(m.DiskCapacityBytes), DiskHostBytes: uint64(m.DiskHostBytes)}
	if p := m.Pager; p != nil {
		v.Pager = &pagerView{CPUMicroseconds: uint64(p.CPU.Microseconds()), MemoryBytes: uint64(p.MemoryBytes), Faults: uint64(p.Faults),
			ReadBytes: uint64(p.ReadBytes), Ended: p.Ended}
	}
	return v
}
