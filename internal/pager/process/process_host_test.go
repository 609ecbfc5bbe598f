//go:build hosttest

package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// TestMain makes this binary the pager's program, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

const patience = time.Minute

// world is a state folder with one build.
type world struct {
	Starter
	t     *testing.T
	build string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, Starter: Starter{StateDir: t.TempDir(), Command: []string{self, Command}}, build: blockmap.NewBuildID()}
	store, err := snapshot.New(filepath.Join(w.StateDir, "builds"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := store.Begin(t.Context(), w.build, "")
	if err != nil {
		t.Fatal(err)
	}
	memory := make([]byte, 16<<20)
	copy(memory, "the first page")
	for name, data := range map[string][]byte{manifest.VMState: {1}, manifest.Disk: {1}, manifest.Memory: memory} {
		if err := os.WriteFile(g.Path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	digest := strings.Repeat("0", 64)
	info := snapshot.Info{Kind: manifest.Diff, Host: manifest.Host{Firecracker: "1", SnapshotFormat: "1", CPU: manifest.CPU{Vendor: "x"}, KernelRelease: "1"},
		Machine: manifest.Machine{Kernel: digest, RootFS: digest, VCPUs: 1, MemoryMiB: 16, DiskBytes: 4096,
			Devices: manifest.Devices{Drives: []manifest.Drive{{ID: "rootfs"}}}}}
	if _, _, err := g.Commit(t.Context(), info, snapshot.Ref{Kind: "snapshot", Name: "x"}); err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts the pager of a new sandbox, which is removed when the test ends.
func (w *world) start() (string, *Process) {
	w.t.Helper()
	spec := w.spec()
	p, err := w.Start(w.t.Context(), spec)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		if err := errors.Join(w.Remove(ctx, spec.ID), p.Close()); err != nil {
			w.t.Error(err)
		}
		if ids, err := w.List(ctx); err != nil || len(ids) != 0 {
			w.t.Errorf("left: %v, %v", ids, err)
		}
	})
	return spec.ID, p
}

func (w *world) spec() Spec {
	w.t.Helper()
	spec := Spec{ID: id.New(), Builds: filepath.Join(w.StateDir, "builds"), Build: w.build, Machine: 1_899_100_000, Become: 1_899_100_001}
	if err := os.MkdirAll(filepath.Join(w.StateDir, "sandboxes", spec.ID), 0o700); err != nil {
		w.t.Fatal(err)
	}
	return spec
}

func (w *world) ended(p *Process) {
	w.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		w.t.Fatal("its end was not noticed")
	}
}

func TestALife(t *testing.T) {
	w := newWorld(t)
	sandbox, p := w.start()
	var st unix.Stat_t
	if err := unix.Stat(p.Socket(), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Uid != 1_899_100_000 || st.Mode&0o077 != 0 {
		t.Errorf("the socket is %+v, %v", st, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Handle().PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t1899100001\t1899100001\t1899100001\t1899100001", "CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("its status does not say %q", want)
		}
	}
	if _, err := w.Start(t.Context(), Spec{ID: sandbox, Builds: "x", Build: w.build}); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("a second one: %v", err)
	}
	if ids, err := w.List(t.Context()); err != nil || !slices.Equal(ids, []string{sandbox}) {
		t.Errorf("List = %v, %v", ids, err)
	}
	for range 2 {
		if err := w.Remove(t.Context(), sandbox); err != nil {
			t.Error(err)
		}
	}
	w.ended(p)
}

// othersSocket has nobody listen where the pager does, for a moment, and then another process: it is not the one of the handle then.
func (w *world) othersSocket(sandbox string, p *Process) {
	w.t.Helper()
	path := filepath.Join(w.folder(sandbox), controlName)
	if err := os.Rename(path, path+".aside"); err != nil {
		w.t.Fatal(err)
	}
	if again, err := w.Recover(w.t.Context(), sandbox, p.Handle()); err != nil {
		w.t.Errorf("without a socket: %v", err)
	} else if err := again.Close(); err != nil {
		w.t.Error(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Recover(w.t.Context(), sandbox, p.Handle()); !errors.Is(err, errs.ErrNotFound) {
		w.t.Errorf("with another's socket: %v", err)
	}
	if err := errors.Join(l.Close(), os.Rename(path+".aside", path)); err != nil {
		w.t.Fatal(err)
	}
}

func TestRecover(t *testing.T) {
	w := newWorld(t)
	sandbox, p := w.start()
	again, err := w.Recover(t.Context(), sandbox, p.Handle())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Handle){
		"another process": func(h *Handle) { h.PID = os.Getpid() }, "another start": func(h *Handle) { h.StartTime++ },
		"another executable": func(h *Handle) { h.Executable = "0:1:2" }, "one without an executable": func(h *Handle) { h.Executable = "" },
		"another boot": func(h *Handle) { h.BootID = "x" }, "no process": func(h *Handle) { h.PID = 1 << 22 },
	} {
		h := p.Handle()
		change(&h)
		if _, err := w.Recover(t.Context(), sandbox, h); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.othersSocket(sandbox, p)
	if err := unix.Kill(p.Handle().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.ended(again)
	w.ended(p)
	if _, err := w.Recover(t.Context(), sandbox, p.Handle()); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("one that was killed: %v", err)
	}
}

// TestOneThatLeft is found again as one that is not missed, and only if it has said so.
func TestOneThatLeft(t *testing.T) {
	w := newWorld(t)
	sandbox, p := w.start()
	if err := unix.Kill(p.Handle().PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.ended(p)
	if p.Left() {
		t.Error("one that was killed is not missed")
	}
	folder, err := os.OpenRoot(w.folder(sandbox))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leave(folder), folder.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := w.Recover(t.Context(), sandbox, p.Handle())
	if err != nil {
		t.Fatal(err)
	}
	w.ended(again)
	if _, err := again.StopRecording(t.Context()); err != nil || !again.Left() {
		t.Errorf("left %v, record %v", again.Left(), err)
	}
	h := p.Handle()
	h.BootID = "x"
	if _, err := w.Recover(t.Context(), sandbox, h); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("before another boot: %v", err)
	}
}

func TestWhatCannotServeSaysWhy(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		change func(*Spec)
		says   string
	}{
		{"no build", func(s *Spec) { s.Build = blockmap.NewBuildID() }, "no such file"},
		{"a root pager", func(s *Spec) { s.Become = 0 }, "root"},
		{"a bad build id", func(s *Spec) { s.Build = "../x" }, "invalid"},
		{"a build that was cut", func(*Spec) { w.cut() }, "100 bytes"},
	} {
		name, spec := c.name, w.spec()
		c.change(&spec)
		if _, err := w.Start(t.Context(), spec); !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if ids, err := w.List(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("%s left %v, %v", name, ids, err)
		}
	}
}

// cut makes the memory file of the build shorter than its map says.
func (w *world) cut() {
	w.t.Helper()
	path := filepath.Join(w.StateDir, "builds", w.build, manifest.Memory)
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 100)); err != nil {
		w.t.Fatal(err)
	}
}
