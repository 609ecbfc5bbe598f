package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cgroup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
)

// fakeEnv makes this test binary a Firecracker that behaves as the variable says: "" well, else "what:where".
const fakeEnv = "WRENN_TEST_FIRECRACKER"

func TestMain(m *testing.M) {
	if behaviour, ok := os.LookupEnv(fakeEnv); ok {
		fakeFirecracker(behaviour)
	}
	os.Exit(m.Run())
}

// fakeFirecracker serves the API in the current folder, which is the jail's root, as a real process on a real socket.
func fakeFirecracker(behaviour string) {
	what, where, _ := strings.Cut(behaviour, ":")
	switch what {
	case "exit":
		fmt.Fprintln(os.Stderr, "thread 'main' panicked: \x1b[31mno KVM\x1b[0m")
		os.Exit(3)
	case "silent":
		select {}
	}
	l, err := net.Listen("unix", socketName)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	f := &fakeServer{what: what, where: where}
	_ = http.Serve(l, f)
	os.Exit(1)
}

// fakeServer answers as Firecracker does, but for one path.
type fakeServer struct {
	what, where string

	mu     sync.Mutex // the API serves one request at a time
	args   string
	paused bool
	tracks bool
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	log, err := os.OpenFile("requests", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintf(log, "%s %s %s\n", r.Method, r.URL.Path, body)
		log.Close()
	}
	if r.URL.Path == f.where {
		f.misbehave(w)
		return
	}
	var doc map[string]any
	if json.Unmarshal(body, &doc) != nil {
		refuse(w, "no JSON")
		return
	}
	if args, ok := doc["boot_args"].(string); ok {
		f.args = args
	}
	f.tracks = f.tracks || doc["track_dirty_pages"] == true || doc["enable_diff_snapshots"] == true
	switch r.URL.Path {
	case "/snapshot/load":
		if problem := loads(doc); problem != "" {
			refuse(w, problem)
			os.Exit(1) // as Firecracker does
		}
		f.paused = true
	case "/vm":
		f.paused = doc["state"] == "Paused"
	case "/snapshot/create":
		if problem := f.freeze(doc); problem != "" {
			refuse(w, problem)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
	if r.URL.Path == "/actions" {
		go guest(f.args)
	}
}

// loads looks whether what a frozen machine comes from is there, relative to the jail's root.
func loads(doc map[string]any) string {
	backend, _ := doc["mem_backend"].(map[string]any)
	for _, path := range []any{doc["snapshot_path"], backend["backend_path"]} {
		name, _ := path.(string)
		if _, err := os.Stat(strings.TrimPrefix(name, "/")); err != nil {
			return err.Error()
		}
	}
	return ""
}

// freeze writes files as a snapshot's are: the memory is a hole but for its first page.
func (f *fakeServer) freeze(doc map[string]any) string {
	switch {
	case !f.paused:
		return "save/restore unavailable while running"
	case doc["snapshot_type"] == "Diff" && !f.tracks:
		return "Diff snapshots are not allowed on uVMs with dirty page tracking disabled"
	}
	for _, file := range []struct {
		key  string
		size int64
	}{{"snapshot_path", 4096}, {"mem_file_path", 128 << 20}} {
		name, _ := doc[file.key].(string)
		w, err := os.OpenFile(strings.TrimPrefix(name, "/"), os.O_WRONLY, 0)
		if err == nil {
			_, err = w.Write(bytes.Repeat([]byte{1}, 4096))
		}
		if err == nil {
			err = w.Truncate(file.size)
		}
		if err != nil {
			return err.Error()
		}
		w.Close()
	}
	return ""
}

func refuse(w http.ResponseWriter, message string) {
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"fault_message": message})
}

func (f *fakeServer) misbehave(w http.ResponseWriter) {
	switch f.what {
	case "refuse":
		refuse(w, "The kernel file cannot be opened: \x1b[1mNo such file\n or directory (os error 2)")
	case "die":
		fmt.Fprintln(os.Stderr, "out of cheese")
		os.Exit(148)
	case "hang":
		select {}
	default:
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			os.Exit(1)
		}
		defer conn.Close()
		if f.what == "garbage" {
			_, _ = io.WriteString(conn, strings.Repeat("\x1b[2J\xff", 100))
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 400 \r\n\r\n")
		for {
			if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}
}

// guest does what the boot arguments ask the real test guest to do.
func guest(args string) {
	switch {
	case strings.Contains(args, "reboot"):
		time.Sleep(50 * time.Millisecond) // the answer to the start goes first: no guest boots faster
		os.Exit(0)
	case strings.Contains(args, "flood"):
		for _, f := range []*os.File{os.Stdout, os.Stderr} {
			go func() {
				for {
					_, _ = unix.Write(int(f.Fd()), bytes.Repeat([]byte("\x1b[31mflood\n"), 100))
				}
			}()
		}
	}
}

// fakeHost is what all drivers of a test share: cgroups in memory, jails in a folder.
type fakeHost struct {
	dir       string
	behaviour string
	version   string

	mu     sync.Mutex
	groups map[string]*fakeGroup
}

// fakeGroup is a cgroup in memory. Nothing in it can be killed by the kernel, so it does it itself.
type fakeGroup struct {
	host *fakeHost
	id   string

	limits vmm.Limits
	pid    int
	oom    bool
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	h := &fakeHost{dir: t.TempDir(), version: "1.12.1", groups: map[string]*fakeGroup{}}
	t.Cleanup(func() {
		for _, g := range h.groups {
			t.Errorf("the cgroup of %s is left", g.id)
			_ = g.Kill(context.Background())
		}
		if ids, err := jail.New(filepath.Join(h.dir, "jail"), filepath.Join(h.dir, "stage")).List(); err != nil || len(ids) != 0 {
			t.Errorf("jails are left: %v, %v", ids, err)
		}
	})
	return h
}

// driver returns a driver that starts the fake.
func (h *fakeHost) driver(t *testing.T) *Driver {
	t.Helper()
	for _, name := range []string{"firecracker", "jailer"} {
		text := fmt.Sprintf("#!/bin/sh\necho %s v%s\n", name, h.version)
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := New(Options{StateDir: h.dir, Firecracker: filepath.Join(h.dir, "firecracker"), Jailer: filepath.Join(h.dir, "jailer")})
	d.groups = h
	d.launch = h.launch
	return d
}

func (h *fakeHost) launch(l launch) (*child, error) {
	fd := -1
	cmd := exec.Command(os.Args[0])
	cmd.Dir, cmd.Env = l.root, []string{fakeEnv + "=" + h.behaviour}
	cmd.Stderr = l.log
	if l.console != nil {
		cmd.Stdout = l.console
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.groups[l.id].pid = cmd.Process.Pid
	return adopt(cmd, fd)
}

// Create makes a group.
func (h *fakeHost) Create(id string, limits vmm.Limits) (group, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.groups[id] != nil {
		return nil, fmt.Errorf("cgroup %s: %w", id, errs.ErrAlreadyExists)
	}
	g := &fakeGroup{host: h, id: id, limits: limits}
	h.groups[id] = g
	return g, nil
}

// Get returns a group that may not exist.
func (h *fakeHost) Get(id string) group {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.groups[id]; g != nil {
		return g
	}
	return &fakeGroup{host: h, id: id}
}

// List returns the ids that have a group.
func (h *fakeHost) List() ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.groups)), nil
}

// Tidy has nothing to do.
func (h *fakeHost) Tidy() error { return nil }

// Open returns any folder.
func (g *fakeGroup) Open() (*os.File, error) { return os.Open("/") }

// Members returns the pid that was launched, if it runs.
func (g *fakeGroup) Members() ([]int, error) {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	if g.pid == 0 || unix.Kill(g.pid, 0) != nil {
		return nil, nil
	}
	return []int{g.pid}, nil
}

// OOMKilled says what outOfMemory did.
func (g *fakeGroup) OOMKilled() bool {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	return g.oom
}

// Usage says that the group has taken nothing.
func (g *fakeGroup) Usage() (cgroup.Usage, error) { return cgroup.Usage{}, nil }

// Kill kills the process and waits until it is at least a zombie.
func (g *fakeGroup) Kill(ctx context.Context) error {
	g.host.mu.Lock()
	pid := g.pid
	g.host.mu.Unlock()
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) || ctx.Err() != nil {
			return nil
		}
	}
}

// Remove forgets the group.
func (g *fakeGroup) Remove() error {
	g.host.mu.Lock()
	defer g.host.mu.Unlock()
	delete(g.host.groups, g.id)
	return nil
}

// outOfMemory ends the machine as the kernel does at the memory limit.
func (h *fakeHost) outOfMemory(machine string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[machine]
	g.oom = true
	_ = unix.Kill(g.pid, unix.SIGKILL)
}

// config is a machine whose process may belong to whoever runs the test.
func (h *fakeHost) config(t *testing.T) vmm.Config {
	t.Helper()
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
	}
	for _, name := range []string{"vmlinux", "initramfs", "modules"} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gid := os.Getgid()
	if gid == 0 {
		gid = 65534
	}
	return vmm.Config{
		ID: id.New(), VCPUs: 1, MemoryMiB: 128, Kernel: filepath.Join(h.dir, "vmlinux"), Initramfs: filepath.Join(h.dir, "initramfs"),
		BootArgs: "quiet", Drives: []vmm.Drive{{ID: "modules", Path: filepath.Join(h.dir, "modules"), ReadOnly: true}},
		NIC: &vmm.NIC{TAP: "tap0", MAC: "02:77:72:65:6e:01"}, Metadata: map[string]any{"SECRET": "x"}, Console: true,
		Jail: vmm.Jail{UID: uid, GID: gid, NetNS: "/run/netns/none", Limits: vmm.Limits{MemoryMaxBytes: 1 << 30, PIDsMax: 70}},
	}
}

// patience bounds what should not take long on any machine.
const patience = time.Minute
