package rpc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// inFiles is a world with a sandbox.
func inFiles(t *testing.T) (w *world, id string) {
	t.Helper()
	w = newWorld(t, quota.Amount{})
	return w, w.create()
}

func (w *world) at(name string) string { return filepath.Join(w.files.Home, name) }

// names are those in the guest's home.
func (w *world) names() string {
	w.t.Helper()
	list, err := os.ReadDir(w.files.Home)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestFilesOverTheWire(t *testing.T) {
	w, id := inFiles(t)
	ctx := t.Context()
	content := make([]byte, 3<<20+17) // several pieces, and the last one not whole
	_, _ = rand.Read(content)
	mode := uint32(0o750)
	if n, err := w.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: id, Path: "a/b/large", Mode: &mode}, bytes.NewReader(content)); err != nil || n != int64(len(content)) {
		t.Fatal(n, err)
	}
	if n, err := w.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: id, Path: "a/empty"}, strings.NewReader("")); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	var got bytes.Buffer
	if n, err := w.ReadFile(ctx, &pb.ReadFileRequest{Id: id, Path: "a/b/large"}, &got); err != nil || n != int64(len(content)) || !bytes.Equal(got.Bytes(), content) {
		t.Errorf("read %d, %v", n, err)
	}
	got.Reset()
	if n, err := w.ReadFile(ctx, &pb.ReadFileRequest{Id: id, Path: "a/b/large", Offset: 1 << 20, Length: 100}, &got); err != nil || n != 100 ||
		!bytes.Equal(got.Bytes(), content[1<<20:1<<20+100]) {
		t.Errorf("a range: %d, %v", n, err)
	}
	if n, err := w.ReadFile(ctx, &pb.ReadFileRequest{Id: id, Path: "a/empty"}, &got); err != nil || n != 0 {
		t.Errorf("an empty file: %d, %v", n, err)
	}
	st, err := w.Files.StatFile(ctx, connect.NewRequest(&pb.StatFileRequest{Id: id, Path: "a/b/large"}))
	if f := st.Msg.GetFile(); err != nil || f.GetSize() != uint64(len(content)) || f.GetMode() != mode || f.GetType() != pb.FileType_FILE_TYPE_FILE ||
		f.GetInexact() || f.GetModified().AsTime().Before(time.Now().Add(-time.Hour)) || f.GetPath() != w.at("a/b/large") {
		t.Errorf("%v, %v", st, err)
	}
	list, err := w.Files.ListFiles(ctx, connect.NewRequest(&pb.ListFilesRequest{Id: id, Path: "a", Depth: 2}))
	if err != nil || len(list.Msg.GetFiles()) != 3 || list.Msg.GetFiles()[0].GetType() != pb.FileType_FILE_TYPE_DIRECTORY {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := w.Files.MoveFile(ctx, connect.NewRequest(&pb.MoveFileRequest{Id: id, Source: "a/empty", Destination: "c/d"})); err != nil {
		t.Error(err)
	}
	for range 2 { // what is gone is removed already
		if _, err := w.Files.RemoveFile(ctx, connect.NewRequest(&pb.RemoveFileRequest{Id: id, Path: "a"})); err != nil {
			t.Error(err)
		}
	}
	if got := w.names(); got != "c" {
		t.Errorf("there are %q", got)
	}
}

// TestKindsOfFileErrors: an error is of the kind that the guest's kernel meant, at the other end of both wires.
func TestKindsOfFileErrors(t *testing.T) {
	w, id := inFiles(t)
	ctx := t.Context()
	if err := os.WriteFile(w.at("file"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	mkdir := func(path string) error {
		_, err := w.Files.MakeDir(ctx, connect.NewRequest(&pb.MakeDirRequest{Id: id, Path: path}))
		return err
	}
	stat := func(id, user, path string) error {
		_, err := w.Files.StatFile(ctx, connect.NewRequest(&pb.StatFileRequest{Id: id, Path: path, User: user}))
		return err
	}
	read := func(req *pb.ReadFileRequest) error {
		req.Id = id
		_, err := w.ReadFile(ctx, req, io.Discard)
		return err
	}
	write := func(path string) error {
		_, err := w.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: id, Path: path}, strings.NewReader("x"))
		return err
	}
	_, listing := w.Files.ListFiles(ctx, connect.NewRequest(&pb.ListFilesRequest{Id: id, Path: "file"}))
	_, moving := w.Files.MoveFile(ctx, connect.NewRequest(&pb.MoveFileRequest{Id: id, Source: "none", Destination: "x"}))
	for what, c := range map[string]struct{ err, kind error }{
		"made": {mkdir("dir"), nil}, "made again": {mkdir("dir"), errs.ErrAlreadyExists}, "made over a file": {mkdir("file"), errs.ErrInvalid},
		"missing": {stat(id, "", "none"), errs.ErrNotFound}, "no sandbox": {stat(nobody, "", "none"), errs.ErrNotFound},
		"no path": {stat(id, "", ""), errs.ErrInvalid}, "a NUL": {stat(id, "", "a\x00b"), errs.ErrInvalid},
		"no user": {stat(id, "nobody-of-that-name", "file"), errs.ErrUnauthenticated}, "list a file": {listing, errs.ErrInvalid},
		"read a folder": {read(&pb.ReadFileRequest{Path: "dir"}), errs.ErrInvalid}, "read none": {read(&pb.ReadFileRequest{Path: "none"}), errs.ErrNotFound},
		"beyond the end": {read(&pb.ReadFileRequest{Path: "file", Offset: 99}), errs.ErrInvalid}, "move none": {moving, errs.ErrNotFound},
		"too far": {read(&pb.ReadFileRequest{Path: "file", Offset: 1 << 62}), errs.ErrInvalid}, "write a folder": {write("dir"), errs.ErrInvalid},
		"below a file": {write("file/x"), errs.ErrInvalid}, "nothing": {write("/proc/none/x"), errs.ErrNotFound},
	} {
		if what == "made again" {
			continue
		}
		if !errors.Is(c.err, c.kind) {
			t.Errorf("%s: %v, want %v", what, c.err, c.kind)
		}
	}
	if err := mkdir("dir"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("made again: %v", err)
	}
}

// TestAWriteThatBreaksOff stores nothing, and leaves what was there.
func TestAWriteThatBreaksOff(t *testing.T) {
	w, id := inFiles(t)
	if err := os.WriteFile(w.at("f"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []error{errors.New("the disk is gone"), io.ErrUnexpectedEOF} {
		for _, size := range []int{0, 100, 1 << 20} {
			r := io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(gone))
			if _, err := w.WriteFile(t.Context(), &pb.WriteFileRequest_Start{Id: id, Path: "f"}, r); !errors.Is(err, gone) {
				t.Errorf("after %d bytes: %v", size, err)
			}
		}
	}
	for name, parts := range map[string][]*pb.WriteFileRequest{
		"nothing": nil, "no start": {data("x")}, "no end": {start(id), data("new")}, "another start": {start(id), data("new"), start(id)},
		"too early an end": {start(id), data("new"), end(9)}, "a large piece": {start(id), data(strings.Repeat("x", 1<<20+1)), end(1<<20 + 1)},
		"no path": {{Part: &pb.WriteFileRequest_Start_{Start: &pb.WriteFileRequest_Start{Id: id}}}},
	} {
		stream := w.Files.WriteFile(t.Context())
		for _, p := range parts {
			_ = stream.Send(p) // the answer tells
		}
		if _, err := stream.CloseAndReceive(); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream := w.Files.WriteFile(ctx)
	for _, p := range []*pb.WriteFileRequest{start(id), data("new")} {
		if err := stream.Send(p); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	_, _ = stream.CloseAndReceive()
	for deadline := time.Now().Add(20 * time.Second); w.names() != "f" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if text, err := os.ReadFile(w.at("f")); err != nil || string(text) != "old" || w.names() != "f" {
		t.Errorf("there is %q, %v, and %q", text, err, w.names())
	}
}

func start(id string) *pb.WriteFileRequest {
	return &pb.WriteFileRequest{Part: &pb.WriteFileRequest_Start_{Start: &pb.WriteFileRequest_Start{Id: id, Path: "f"}}}
}

func data(text string) *pb.WriteFileRequest {
	return &pb.WriteFileRequest{Part: &pb.WriteFileRequest_Data{Data: []byte(text)}}
}

func end(n uint64) *pb.WriteFileRequest {
	return &pb.WriteFileRequest{Part: &pb.WriteFileRequest_End_{End: &pb.WriteFileRequest_End{Bytes: n}}}
}

// TestARefusedWriteEnds although its caller has more to send, or says nothing more and would wait for ever.
func TestARefusedWriteEnds(t *testing.T) {
	w, id := inFiles(t)
	if err := os.Mkdir(w.at("f"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteFile(t.Context(), &pb.WriteFileRequest_Start{Id: id, Path: "f"}, endless{}); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("endless: %v", err)
	}
	stream := w.Files.WriteFile(t.Context())
	for _, p := range []*pb.WriteFileRequest{start(id), data("some")} {
		if err := stream.Send(p); err != nil {
			t.Fatal(err)
		}
	}
	for stream.Send(data("")) == nil { // until the answer is there; what is sent has no content
		time.Sleep(time.Millisecond)
	}
	if _, err := stream.CloseAndReceive(); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("silent: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestASlowReader makes the guest wait, and holds little meanwhile.
func TestASlowReader(t *testing.T) {
	w, id := inFiles(t)
	f, err := os.Create(w.at("large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(1<<40), f.Close()); err != nil { // a hole
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	stop := errors.New("enough")
	n, err := w.ReadFile(ctx, &pb.ReadFileRequest{Id: id, Path: "large"}, &limited{left: 4 << 20, err: stop})
	if !errors.Is(err, stop) || n != 4<<20 {
		t.Errorf("%d, %v", n, err)
	}
}

type limited struct {
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	if n < len(p) || l.left == 0 {
		return n, l.err
	}
	return n, nil
}

func TestAWatchOverTheWire(t *testing.T) {
	w, id := inFiles(t)
	enough := errors.New("enough")
	var seen []string
	err := w.WatchFiles(t.Context(), &pb.WatchFilesRequest{Id: id, Path: ".", Recursive: true}, func() {
		if err := os.MkdirAll(w.at("new/below"), 0o755); err != nil {
			t.Error(err)
		}
	}, func(e *pb.WatchFilesResponse_Changed) error {
		seen = append(seen, e.GetName())
		if e.GetName() == "new/below" && e.GetChange() == pb.FileChange_FILE_CHANGE_CREATED {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("%v after %q", err, seen)
	}
	err = w.WatchFiles(t.Context(), &pb.WatchFilesRequest{Id: id, Path: "new"}, func() {
		if err := os.RemoveAll(w.at("new")); err != nil {
			t.Error(err)
		}
	}, func(*pb.WatchFilesResponse_Changed) error { return nil })
	if !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("the folder is gone: %v", err)
	}
	if err := w.WatchFiles(t.Context(), &pb.WatchFilesRequest{Id: id, Path: "none"}, nil, nil); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("no folder: %v", err)
	}
}

// TestFilesEndWithTheSandbox: whoever watches is told why there is nothing more to see.
func TestFilesEndWithTheSandbox(t *testing.T) {
	w, id := inFiles(t)
	var paused error
	err := w.WatchFiles(t.Context(), &pb.WatchFilesRequest{Id: id, Path: "."}, func() {
		_, paused = w.Sandboxes.Pause(t.Context(), connect.NewRequest(&pb.PauseRequest{Id: id}))
	}, func(*pb.WatchFilesResponse_Changed) error { return nil })
	if paused != nil || !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("%v; the watch ends with %v", paused, err)
	}
	_, err = w.Files.StatFile(t.Context(), connect.NewRequest(&pb.StatFileRequest{Id: id, Path: "."}))
	if !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("of a paused one: %v", err)
	}
}

func TestStats(t *testing.T) {
	w, id := inFiles(t)
	other := w.create()
	paused := w.create()
	if _, err := w.Sandboxes.Pause(t.Context(), connect.NewRequest(&pb.PauseRequest{Id: paused})); err != nil {
		t.Fatal(err)
	}
	all, err := w.Client.Host.Stats(t.Context(), connect.NewRequest(&pb.StatsRequest{}))
	if err != nil || len(all.Msg.GetStats()) != 2 {
		t.Fatal(all, err)
	}
	one, err := w.Client.Host.Stats(t.Context(), connect.NewRequest(&pb.StatsRequest{Ids: []string{id, paused}}))
	if err != nil || len(one.Msg.GetStats()) != 1 {
		t.Fatal(one, err)
	}
	s := one.Msg.GetStats()[0]
	if s.GetId() != id || s.GetId() == other || s.GetCpuMicroseconds() != 256_000 || s.GetMemoryLimitBytes() != 256<<20 || s.GetTime() == nil ||
		s.GetDiskCapacityBytes() == 0 || s.GetPager().GetFaults() != 3 || s.GetPager().GetEnded() {
		t.Errorf("%v", s)
	}
	if _, err := w.Client.Host.Stats(t.Context(), connect.NewRequest(&pb.StatsRequest{Ids: []string{nobody}})); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := w.Client.Host.Stats(t.Context(), connect.NewRequest(&pb.StatsRequest{Ids: []string{"x"}})); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("of no id: %v", err)
	}
}

// stuck is a connection to a guest that takes some bytes and no more.
type stuck struct {
	net.Conn
	left   int
	closed chan struct{}
	once   sync.Once
}

func (c *stuck) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *stuck) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// counted is endless, and says how much of it was read.
type counted struct{ n atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// TestAGuestThatTakesNothing holds up the file that it is sent, of which little is held meanwhile, and no other call on the same connection.
func TestAGuestThatTakesNothing(t *testing.T) {
	w, id := inFiles(t)
	w.guest.Client = guest.New(func(ctx context.Context, port int) (net.Conn, error) {
		conn, err := w.files.Dial(ctx, port)
		return &stuck{Conn: conn, left: 1 << 20, closed: make(chan struct{})}, err
	}, w.files.Token)
	ctx, cancel := context.WithCancel(t.Context())
	written, sent := make(chan error, 1), &counted{}
	go func() {
		_, err := w.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: id, Path: "f"}, sent)
		written <- err
	}()
	for before := int64(-1); sent.n.Load() != before; time.Sleep(300 * time.Millisecond) {
		before = sent.n.Load()
	}
	if n := sent.n.Load(); n > 8<<20 {
		t.Errorf("%d bytes are on their way to a guest that takes one MiB", n)
	}
	for range 9 { // more than a stream's share together
		input := &pb.SendInputRequest{Id: id, Pid: 99, Data: make([]byte, 200<<10)}
		if _, err := w.Processes.SendInput(t.Context(), connect.NewRequest(input)); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("input for no command: %v", err)
		}
	}
	cancel()
	if err := <-written; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller leaves: %v", err)
	}
	w.guest.Close()
}
