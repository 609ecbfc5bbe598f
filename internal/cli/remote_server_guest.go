package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/client"
	"wrenn.dev/wrenn/internal/cli/transfer"
	guest "wrenn.dev/wrenn/internal/guest/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func (r *serverRemote) exec(ctx context.Context, id string, c guest.Command) (guest.Result, error) {
	sb := r.c.Sandboxes.Of(id)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var exit client.Exit
	var err error
	if c.PTY != nil {
		exit, err = r.terminal(ctx, cancel, sb, c)
	} else {
		exit, err = r.stream(ctx, sb, c)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return guest.Result{ExitCode: exit.Code, Signal: exit.Signal, Status: exit.Status}, r.told(err)
}

// stream runs a command without a terminal.
func (r *serverRemote) stream(ctx context.Context, sb *client.Sandbox, c guest.Command) (client.Exit, error) {
	p, err := sb.Start(ctx, client.Command{Cmd: c.Cmd, Args: c.Args, Env: c.Env, Cwd: c.Cwd, User: c.User, Timeout: c.Timeout,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr})
	if err != nil {
		return client.Exit{}, err
	}
	done := make(chan struct{})
	defer close(done)
	go r.steer(ctx, sb, p.PID, c, nil, done)
	return p.Wait()
}

// steer passes signals and sizes on until done is closed. One that can't be sent, because the command just ended, is not missed.
func (r *serverRemote) steer(ctx context.Context, sb *client.Sandbox, pid int, c guest.Command, t *client.Terminal, done <-chan struct{}) {
	for {
		select {
		case sig := <-c.Signals:
			_ = sb.Signal(ctx, pid, sig)
		case size := <-c.Resize:
			if t != nil {
				_ = t.Resize(client.TerminalSize{Cols: int(size.Cols), Rows: int(size.Rows)})
			}
		case <-done:
			return
		}
	}
}

// terminal runs a command in a terminal. A terminal's start has no variables of its own: env gives them.
func (r *serverRemote) terminal(ctx context.Context, cancel context.CancelCauseFunc, sb *client.Sandbox, c guest.Command) (client.Exit, error) {
	o := client.TerminalOptions{Cmd: c.Cmd, Args: c.Args, Cwd: c.Cwd, User: c.User, Size: client.TerminalSize{Cols: int(c.PTY.Cols), Rows: int(c.PTY.Rows)}}
	if len(c.Env) > 0 {
		o.Cmd, o.Args = "env", nil
		for _, k := range slices.Sorted(maps.Keys(c.Env)) {
			o.Args = append(o.Args, k+"="+c.Env[k])
		}
		o.Args = append(append(o.Args, c.Cmd), c.Args...)
	}
	if c.Timeout > 0 {
		timer, stop := context.WithTimeoutCause(ctx, c.Timeout, context.DeadlineExceeded)
		defer stop()
		context.AfterFunc(timer, func() {
			if errors.Is(context.Cause(timer), context.DeadlineExceeded) {
				cancel(context.DeadlineExceeded)
			}
		})
	}
	t, err := sb.OpenTerminal(ctx, o)
	if err != nil {
		return client.Exit{}, err
	}
	defer t.Close()
	done := make(chan struct{})
	defer close(done)
	go r.steer(ctx, sb, t.PID, c, t, done)
	if c.Stdin != nil {
		go r.typed(cancel, t, c.Stdin, done)
	}
	if _, err := io.Copy(c.Stdout, t); err != nil {
		return client.Exit{}, err
	}
	return t.Exit()
}

// typed passes on what is typed. The end of it is Ctrl-D.
func (r *serverRemote) typed(cancel context.CancelCauseFunc, t *client.Terminal, in io.Reader, done <-chan struct{}) {
	_, err := io.Copy(t, in)
	if err == nil {
		_, err = t.Write([]byte{4})
	}
	select {
	case <-done: // it has ended, and takes no more
	default:
		if err != nil {
			cancel(err)
		}
	}
}

func (r *serverRemote) files(id, user string) transfer.Guest {
	return serverFiles{r, r.c.Sandboxes.Of(id).Files().As(user)}
}

// serverFiles are a sandbox's files through a server.
type serverFiles struct {
	r *serverRemote
	f *client.Files
}

var fileTypes = map[client.FileType]pb.FileType{client.RegularFile: pb.FileType_FILE_TYPE_FILE, client.Directory: pb.FileType_FILE_TYPE_DIRECTORY,
	client.Symlink: pb.FileType_FILE_TYPE_SYMLINK} // all others are none of these

func toFile(f client.FileInfo) *pb.File {
	file := &pb.File{Name: f.Name, Path: f.Path, Inexact: f.Inexact, Type: fileTypes[f.Type], Mode: uint32(f.Mode.Perm()), Size: uint64(max(f.Size, 0)),
		Owner: f.Owner, Group: f.Group, SymlinkTarget: f.SymlinkTarget}
	if !f.ModifiedAt.IsZero() {
		file.Modified = timestamppb.New(f.ModifiedAt)
	}
	return file
}

// Stat implements transfer.Guest.
func (g serverFiles) Stat(ctx context.Context, path string) (*pb.File, error) {
	f, err := g.f.Stat(ctx, path)
	if err != nil {
		return nil, g.r.told(err)
	}
	return toFile(f), nil
}

// List implements transfer.Guest.
func (g serverFiles) List(ctx context.Context, path string) ([]*pb.File, error) {
	list, err := g.f.List(ctx, path, 1)
	if err != nil {
		return nil, g.r.told(err)
	}
	files := make([]*pb.File, len(list))
	for i, f := range list {
		files[i] = toFile(f)
	}
	return files, nil
}

// MakeDir implements transfer.Guest.
func (g serverFiles) MakeDir(ctx context.Context, path string) error {
	return g.r.told(g.f.Mkdir(ctx, path))
}

// Read implements transfer.Guest.
func (g serverFiles) Read(ctx context.Context, path string, length uint64, w io.Writer) error {
	var content io.ReadCloser
	var err error
	if length > 0 {
		content, err = g.f.ReadRange(ctx, path, 0, int64(length))
	} else {
		content, err = g.f.Read(ctx, path)
	}
	if err != nil {
		return g.r.told(err)
	}
	defer content.Close()
	from := io.Reader(content)
	if length > 0 {
		from = io.LimitReader(content, int64(length))
	}
	_, err = io.Copy(w, from)
	return g.r.told(err)
}

// Write implements transfer.Guest.
func (g serverFiles) Write(ctx context.Context, path string, mode uint32, r io.Reader) error {
	_, err := g.f.Write(ctx, path, r, client.Mode(fs.FileMode(mode)))
	return g.r.told(err)
}
