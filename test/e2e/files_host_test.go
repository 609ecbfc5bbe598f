//go:build hosttest

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rpc "connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// largeBytes is the size of the file that is copied both ways.
const largeBytes = 12 << 20

// filed is a sandbox that an agent has, and the command line that reaches it.
type filed struct {
	*agent
	t   *testing.T
	id  string
	dir string // here
}

// cli runs the binary on the agent.
func (f *filed) cli(stdin string, args ...string) result {
	f.t.Helper()
	cmd := command(f.t, []string{"WRENN_AGENT_SOCKET=" + f.socket}, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return finish(f.t, cmd)
}

func (f *filed) make(name string, data []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// TestFilesThroughTheAgent copies files to a guest and back by the command line, and asks the agent for what else there is to do with them,
// until the guest's disk is full. One sandbox serves all of it: a start is the dear part.
func TestFilesThroughTheAgent(t *testing.T) {
	nothingLeft(t)
	f := &filed{t: t, agent: startAgent(t, filepath.Join(t.TempDir(), "agent.sock")), dir: t.TempDir()}
	var made struct{ ID, State string }
	if err := json.Unmarshal([]byte(f.cli("", "create", "--json", "--label", "test=files").want(t, 0).out), &made); err != nil || made.State != "running" {
		t.Fatalf("%+v, %v", made, err)
	}
	f.id = made.ID
	for _, part := range []struct {
		name string
		do   func(*testing.T)
	}{{"copy", f.copies}, {"kinds", f.kinds}, {"watch", f.watches}, {"observe", f.observes}, {"full", f.fills}} {
		t.Run(part.name, part.do)
	}
	f.cli("", "rm", f.id).want(t, 0)
	f.end()
	wrenn(t, "host", "sweep").want(t, 0)
}

// copies takes a folder there and back.
func (f *filed) copies(t *testing.T) {
	large := make([]byte, largeBytes)
	_, _ = rand.Read(large)
	f.make("in/large", large)
	f.make("in/below/small", []byte("text"))
	f.cli("", "cp", filepath.Join(f.dir, "in"), f.id+":").want(t, 0)
	if got := f.exec(f.id, "sha256sum", "in/large"); !strings.HasPrefix(got, digest(large)) {
		t.Errorf("the guest has %s, want %s", got, digest(large))
	}
	if got := f.exec(f.id, "stat", "-c", "%U %a", "in/large"); got != "user 644" {
		t.Errorf("owner and mode are %q", got)
	}
	f.cli("", "cp", f.id+":in", filepath.Join(f.dir, "back")).want(t, 0)
	back, err := os.ReadFile(filepath.Join(f.dir, "back", "large"))
	if err != nil || digest(back) != digest(large) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
	if small, err := os.ReadFile(filepath.Join(f.dir, "back", "below", "small")); err != nil || string(small) != "text" {
		t.Errorf("%q, %v", small, err)
	}
	if out := f.cli("", "cp", f.id+":in/below/small", "-").want(t, 0).out; out != "text" {
		t.Errorf("to standard output: %q", out)
	}
	if r := f.cli("echo $((6 * 7)); exit 5", "shell", f.id); r.code != 5 || r.out != "42\n" {
		t.Errorf("a shell: %+v", r)
	}
}

// kinds has each kind of error of the guest's kernel.
func (f *filed) kinds(t *testing.T) {
	dir := func(path string) error {
		_, err := f.Files.MakeDir(t.Context(), rpc.NewRequest(&pb.MakeDirRequest{Id: f.id, Path: path}))
		return err
	}
	if err := dir("new/dir"); err != nil {
		t.Error(err)
	}
	if err := dir("new/dir"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("made again: %v", err)
	}
	if err := dir("/root/dir"); !errors.Is(err, errs.ErrPermissionDenied) {
		t.Errorf("in root's home: %v", err)
	}
	_, err := f.Files.MoveFile(t.Context(), rpc.NewRequest(&pb.MoveFileRequest{Id: f.id, Source: "none", Destination: "x"}))
	if !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("move nothing: %v", err)
	}
	small := f.make("small", []byte("text"))
	if r := f.cli("", "cp", small, f.id+":/etc/small").want(t, 126); !strings.Contains(r.errOut, "permission denied") {
		t.Errorf("%s", r.errOut)
	}
	f.cli("", "cp", "--user", "root", small, f.id+":/etc/small").want(t, 0)
	if got := f.exec(f.id, "stat", "-c", "%U", "/etc/small"); got != "root" {
		t.Errorf("it belongs to %q", got)
	}
}

// watches sees what a command of the guest does.
func (f *filed) watches(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	enough := errors.New("enough")
	err := f.WatchFiles(ctx, &pb.WatchFilesRequest{Id: f.id, Path: "new", Recursive: true}, func() {
		f.exec(f.id, "sh", "-c", "echo x > new/dir/seen")
	}, func(e *pb.WatchFilesResponse_Changed) error {
		if e.GetName() == "dir/seen" && e.GetChange() == pb.FileChange_FILE_CHANGE_WRITTEN {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("the watch: %v", err)
	}
}

// observes asks for what the host knows of the sandbox.
func (f *filed) observes(t *testing.T) {
	var stats []struct {
		ID       string
		CPU      uint64 `json:"cpu_microseconds"`
		Memory   uint64 `json:"memory_bytes"`
		Limit    uint64 `json:"memory_limit_bytes"`
		Used     uint64 `json:"disk_used_bytes"`
		Capacity uint64 `json:"disk_capacity_bytes"`
		Pager    *struct{ Faults uint64 }
	}
	out := f.cli("", "stats", "--json", f.id).want(t, 0).out
	if err := json.Unmarshal([]byte(out), &stats); err != nil || len(stats) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	// The pages of a guest that began from memory are its pager's to bring in. Of its disk, the host's kernel writes behind.
	if s := stats[0]; s.ID != f.id || s.CPU == 0 || s.Memory < 1<<20 || s.Memory > s.Limit || s.Used == 0 || s.Used > s.Capacity ||
		s.Pager == nil || s.Pager.Faults == 0 {
		t.Errorf("%s", out)
	}
	out = f.cli("", "events", "--past", "--no-follow", "--json", f.id).want(t, 0).out
	if !strings.Contains(out, `"state":"starting"`) || !strings.Contains(out, `"state":"running"`) {
		t.Errorf("events: %s", out)
	}
	if out := f.cli("", "logs", f.id).want(t, 0).out; !strings.Contains(out, "==> vmm <==") {
		t.Errorf("logs: %s", out)
	}
	if out := f.cli("", "get", f.id).want(t, 0).out; !strings.Contains(out, "test=files") {
		t.Errorf("get: %s", out)
	}
	if out := f.cli("", "__complete", "shell", "cl-").want(t, 0).out; !strings.Contains(out, f.id) {
		t.Errorf("completion: %s", out)
	}
}

// fills the guest's disk. A file that has no room is an error that says so, and nothing of it is there.
func (f *filed) fills(t *testing.T) {
	f.exec(f.id, "sh", "-c", "fallocate -l $(df --output=avail -B1 . | tail -1) fill; df --output=avail -B1 . | tail -1")
	before := f.exec(f.id, "ls", "-A")
	r := f.cli("", "cp", filepath.Join(f.dir, "in", "large"), f.id+":half").want(t, 125)
	if !strings.Contains(r.errOut, "not enough disk space") {
		t.Errorf("%s", r.errOut)
	}
	_, err := f.WriteFile(t.Context(), &pb.WriteFileRequest_Start{Id: f.id, Path: "half"}, io.LimitReader(rand.Reader, largeBytes))
	if !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a full disk is %v", err)
	}
	if after := f.exec(f.id, "ls", "-A"); after != before {
		t.Errorf("before there was %q, and now %q", before, after)
	}
	f.exec(f.id, "rm", "fill")
	var text bytes.Buffer
	f.cli("", "cp", filepath.Join(f.dir, "small"), f.id+":half").want(t, 0)
	if _, err := f.ReadFile(t.Context(), &pb.ReadFileRequest{Id: f.id, Path: "half"}, &text); err != nil || text.String() != "text" {
		t.Errorf("with room again: %q, %v", text.String(), err)
	}
}
