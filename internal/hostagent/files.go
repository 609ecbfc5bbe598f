package hostagent

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
)

// changeTime bounds a change of a guest's files that has no content to transfer: the longest is the removal of a large folder.
const changeTime = 10 * time.Minute

// withFiles works on the files of a sandbox as a user of its guest sees them. That is activity, and it ends with the sandbox and with the
// agent. When the guest goes, why it went is the error.
func withFiles[T any](ctx context.Context, a *Agent, call, id, user string, fn func(context.Context, *client.Files) (T, error)) (T, error) {
	var none T
	_, u, err := a.use(ctx, id)
	if err != nil {
		return none, err
	}
	defer u.done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(u.live, func() { cancel(context.Cause(u.live)) })()
	defer context.AfterFunc(a.life, func() { cancel(context.Cause(a.life)) })()
	value, err := fn(ctx, u.guest.Files(user))
	if gone := context.Cause(u.live); err != nil && gone != nil {
		err = gone
	}
	a.metrics.fileCall(call, err)
	return value, err
}

// change is withFiles for what is not left half done because its caller leaves.
func (a *Agent) change(ctx context.Context, call, id, user string, fn func(context.Context, *client.Files) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), changeTime,
		fmt.Errorf("%s took over %v: %w", call, changeTime, errs.ErrUnavailable))
	defer cancel()
	_, err := withFiles(ctx, a, call, id, user, func(ctx context.Context, f *client.Files) (struct{}, error) {
		return struct{}{}, fn(ctx, f)
	})
	return err
}

// StatFile tells of one entry, as client.Files.Stat does. So do the other methods on files as their namesakes; an empty user is the
// guest's default one.
func (a *Agent) StatFile(ctx context.Context, id, user, path string) (client.Entry, error) {
	return withFiles(ctx, a, "stat", id, user, func(ctx context.Context, f *client.Files) (client.Entry, error) {
		return f.Stat(ctx, path)
	})
}

// ListFiles tells of what is in a folder, depth levels of it.
func (a *Agent) ListFiles(ctx context.Context, id, user, path string, depth uint32) ([]client.Entry, error) {
	return withFiles(ctx, a, "list", id, user, func(ctx context.Context, f *client.Files) ([]client.Entry, error) {
		return f.List(ctx, path, depth)
	})
}

// MakeDir makes a folder and those above it. ErrAlreadyExists when there is one.
func (a *Agent) MakeDir(ctx context.Context, id, user, path string) error {
	return a.change(ctx, "make-dir", id, user, func(ctx context.Context, f *client.Files) error { return f.MakeDir(ctx, path) })
}

// MoveFile gives an entry another name.
func (a *Agent) MoveFile(ctx context.Context, id, user, source, destination string) error {
	return a.change(ctx, "move", id, user, func(ctx context.Context, f *client.Files) error { return f.Move(ctx, source, destination) })
}

// RemoveFile removes an entry with all that is in it.
func (a *Agent) RemoveFile(ctx context.Context, id, user, path string) error {
	return a.change(ctx, "remove", id, user, func(ctx context.Context, f *client.Files) error { return f.Remove(ctx, path) })
}

// WatchFiles tells of what happens in a folder, until ctx ends or tell fails; that is its error then. Begun is called once everything from
// then on is told.
func (a *Agent) WatchFiles(ctx context.Context, id, user, path string, recursive bool, begun func() error, tell func(client.Event) error) error {
	_, err := withFiles(ctx, a, "watch", id, user, func(ctx context.Context, f *client.Files) (struct{}, error) {
		var none struct{}
		w, err := f.Watch(ctx, path, recursive)
		if err != nil {
			return none, err
		}
		defer w.Close()
		if err := begun(); err != nil {
			return none, err
		}
		for e, err := range w.Events() {
			if err == nil {
				err = tell(e)
			}
			if err != nil {
				return none, err
			}
		}
		return none, context.Cause(ctx)
	})
	return err
}

// ReadFile writes a part of a file, from an offset on; a length below 0 is all of it. It returns how many bytes it wrote.
func (a *Agent) ReadFile(ctx context.Context, id, user, path string, offset, length int64, w io.Writer) (int64, error) {
	n, err := withFiles(ctx, a, "read", id, user, func(ctx context.Context, f *client.Files) (int64, error) {
		return f.Download(ctx, path, offset, length, w)
	})
	a.metrics.fileBytes.WithLabelValues("read").Add(float64(n))
	return n, err
}

// WriteFile stores what r has as a file of the user, whole or not at all. A Read of r may still be under way when it returns with
// an error.
func (a *Agent) WriteFile(ctx context.Context, id, user, path string, r io.Reader, mode *fs.FileMode) error {
	counted := &countingReader{r: r, count: a.metrics.fileBytes.WithLabelValues("written").Add}
	_, err := withFiles(ctx, a, "write", id, user, func(ctx context.Context, f *client.Files) (struct{}, error) {
		return struct{}{}, f.Upload(ctx, path, counted, mode)
	})
	return err
}

// countingReader counts what is read.
type countingReader struct {
	r     io.Reader
	count func(float64)
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count(float64(n))
	return n, err
}
