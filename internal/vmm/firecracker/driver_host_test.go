//go:build hosttest

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/vmmtest"
)

// stateDir is the state folder of the real drivers. It is one for the whole test, as on a host.
const stateDir = "/var/lib/wrenn-vmm-test"

// firstUID is the first of the uids that test machines run under: below those of real ones.
const firstUID = 1_899_000_000

var machines atomic.Int32

// realDriver returns a driver of the binaries that the host has on its path.
func realDriver(t *testing.T) *Driver {
	t.Helper()
	opts := Options{StateDir: stateDir}
	for name, path := range map[string]*string{"firecracker": &opts.Firecracker, "jailer": &opts.Jailer} {
		found, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		*path = found
	}
	return New(opts)
}

// kernel is the guest kernel of the template "base".
func kernel(t *testing.T) string {
	t.Helper()
	store := template.Open(os.Getenv("WRENN_IMAGES"))
	base, err := store.Get("base")
	if err != nil {
		t.Fatalf("$WRENN_IMAGES: %v", err)
	}
	return store.Path(base.Kernel.Digest)
}

// realConfig is a machine that idles, in a network namespace with a TAP device, both removed when the test ends.
func realConfig(t *testing.T) vmm.Config {
	t.Helper()
	uid := firstUID + int(machines.Add(1))
	cfg := vmm.Config{
		ID: id.New(), VCPUs: 1, MemoryMiB: 256, Kernel: kernel(t), Initramfs: initramfs(t), Console: true,
		BootArgs: "console=ttyS0 quiet loglevel=1 reboot=k panic=1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd rdinit=/init",
		NIC:      &vmm.NIC{TAP: "tap0", MAC: "02:77:72:65:6e:01"}, Metadata: map[string]any{"SECRET": "x"},
		Jail: vmm.Jail{UID: uid, GID: uid, NetNS: makeNetNS(t, uid),
			Limits: vmm.Limits{MemoryMaxBytes: 400 << 20, CPUQuota: 1.5, PIDsMax: 64}},
	}
	guestDoes(&cfg, "idle")
	return cfg
}

func guestDoes(cfg *vmm.Config, mode string) {
	args, _, _ := strings.Cut(cfg.BootArgs, " "+guestEnv+"=")
	cfg.BootArgs = args + " " + guestEnv + "=" + mode
}

// makeNetNS makes a network namespace with the TAP device tap0 that belongs to uid.
func makeNetNS(t *testing.T, uid int) string {
	t.Helper()
	name := fmt.Sprintf("vmmtest-%d", uid)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.NewNamed(name)
		if err == nil {
			defer ns.Close()
			err = netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP,
				Flags: netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI, Owner: uint32(uid), Group: uint32(uid)})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { _ = netns.DeleteNamed(name) })
	return "/run/netns/" + name
}

// run starts a machine that is removed when the test ends.
func run(t *testing.T, d *Driver, cfg vmm.Config) vmm.Machine {
	t.Helper()
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removed(t, d, m) })
	return m
}

// removed removes a machine and makes sure that nothing of it is on the host.
func removed(t *testing.T, d *Driver, m vmm.Machine) {
	h := m.Handle()
	if err := d.Remove(context.Background(), h.ID); err != nil {
		t.Errorf("Remove: %v", err)
	}
	_ = m.Close()
}

func TestHostSuite(t *testing.T) {
	t.Cleanup(func() { nothingOnHost(t) })
	vmmtest.Run(t, vmmtest.Harness{
		Folder: func(t *testing.T) string { return folderIn(t, stateDir) },
		New:    func(t *testing.T) vmm.Driver { return realDriver(t) },
		Config: realConfig,
		Ends: map[vmm.ExitReason]vmmtest.End{
			vmm.ExitGuest:  {Prepare: func(cfg *vmm.Config) { guestDoes(cfg, "reboot") }},
			vmm.ExitSignal: {Provoke: func(t *testing.T, m vmm.Machine) { kill(t, m) }},
			vmm.ExitOOM: {Prepare: func(cfg *vmm.Config) {
				guestDoes(cfg, "memory")
				cfg.Jail.Limits.MemoryMaxBytes = 180 << 20
			}},
		},
	})
}

// nothingOnHost checks for what only this package makes.
func nothingOnHost(t *testing.T) {
	t.Helper()
	if ids, err := realDriver(t).List(context.Background()); err != nil || len(ids) != 0 {
		t.Errorf("machines are left: %v, %v", ids, err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/wrenn"); err == nil {
		t.Error("the parent cgroup is left")
	}
	out, err := exec.Command("ps", "-eo", "comm").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"firecracker", "jailer"} {
		if slices.Contains(strings.Fields(string(out)), name) {
			t.Errorf("a %s process is left", name)
		}
	}
}

// TestHostEndIsNoticedAtOnce says how long after a SIGKILL the end is known.
func TestHostEndIsNoticedAtOnce(t *testing.T) {
	m := run(t, realDriver(t), realConfig(t))
	for _, s := range m.Timings() {
		t.Logf("%-16s %v", s.Name, s.Took.Round(time.Millisecond))
	}
	began := time.Now()
	kill(t, m)
	<-m.Done()
	t.Logf("the end was known %v after the kill", time.Since(began).Round(time.Microsecond))
	if e := m.Exit(); e.Reason != vmm.ExitSignal || e.Signal != 9 {
		t.Errorf("%+v", e)
	}
}

// TestHostRefusals has Firecracker itself refuse something. The caller learns which request it was and the reason.
func TestHostRefusals(t *testing.T) {
	d := realDriver(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("this is no kernel"), 0o444); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*vmm.Config)
		kind   error
		says   []string
	}{
		"no kernel": {func(cfg *vmm.Config) { cfg.Kernel = text }, errs.ErrFailedPrecondition, []string{"PUT /actions", "kernel"}},
		"no device": {func(cfg *vmm.Config) { cfg.NIC.TAP = "tap9" }, errs.ErrFailedPrecondition, []string{"PUT /network-interfaces/eth0", "tap"}},
		"no netns":  {func(cfg *vmm.Config) { cfg.Jail.NetNS = "/run/netns/none" }, errs.ErrUnavailable, []string{"API socket", "/run/netns/none"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := realConfig(t)
			c.change(&cfg)
			_, err := d.Start(t.Context(), cfg)
			t.Logf("%v", err)
			if !errors.Is(err, c.kind) {
				t.Errorf("want %v", c.kind)
			}
			for _, want := range c.says {
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
					t.Errorf("it does not say %q", want)
				}
			}
		})
	}
	nothingOnHost(t)
}

// TestHostJails looks at two machines from outside.
func TestHostJails(t *testing.T) {
	d := realDriver(t)
	var seen []vmm.Confinement
	for range 2 {
		cfg := realConfig(t)
		run(t, d, cfg)
		c, err := d.Inspect(t.Context(), cfg.ID)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", c)
		if c.UID != cfg.Jail.UID || c.GID != cfg.Jail.GID || c.Seccomp != 2 || c.Caps != 0 || c.NewPrivs || len(c.Shared) != 0 ||
			len(c.NSPids) != 2 || c.NSPids[1] != 1 || c.CGroup != "/wrenn/"+cfg.ID ||
			!strings.HasSuffix(c.Root, "/jail/firecracker/"+cfg.ID+"/root") || slices.ContainsFunc(c.Groups, func(g int) bool { return g != cfg.Jail.GID }) {
			t.Errorf("machine of uid %d is not confined", cfg.Jail.UID)
		}
		for name, want := range map[string]string{"memory.max": fmt.Sprint(400 << 20), "memory.swap.max": "0", "memory.oom.group": "1",
			"pids.max": "64", "cpu.max": "150000 100000"} {
			got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/wrenn", cfg.ID, name))
			if err != nil && name != "memory.swap.max" || err == nil && strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q, want %q: %v", name, got, want, err)
			}
		}
		seen = append(seen, c)
	}
	for _, kind := range namespaces {
		var links []string
		for _, c := range seen {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID, kind))
			if err != nil {
				t.Fatal(err)
			}
			links = append(links, link)
		}
		if links[0] == links[1] {
			t.Errorf("two machines share a %s namespace", kind)
		}
	}
}

// starterEnv makes this test binary start a machine, say which, and wait to be killed.
const starterEnv = "WRENN_TEST_STARTER"

func init() {
	text, ok := os.LookupEnv(starterEnv)
	if !ok {
		return
	}
	var cfg vmm.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		panic(err)
	}
	firecracker, _ := exec.LookPath("firecracker")
	jailer, _ := exec.LookPath("jailer")
	m, err := New(Options{StateDir: stateDir, Firecracker: firecracker, Jailer: jailer}).Start(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(m.Handle())
	select {}
}

// starter is a command that starts a machine.
func starter(t *testing.T, cfg vmm.Config, env ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), starterEnv+"="+string(text)), env...)
	return cmd
}

// startElsewhere starts a machine in another process and kills that process.
func startElsewhere(t *testing.T, cfg vmm.Config) vmm.Handle {
	t.Helper()
	cmd := starter(t, cfg)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var h vmm.Handle
	err = json.NewDecoder(out).Decode(&h)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHostStarterDies recovers a machine whose starter was killed.
func TestHostStarterDies(t *testing.T) {
	d := realDriver(t)
	cfg := realConfig(t)
	guestDoes(&cfg, "flood") // with nobody to read it
	h := startElsewhere(t, cfg)
	t.Cleanup(func() { _ = d.Remove(context.Background(), cfg.ID) })
	time.Sleep(2 * time.Second) // the flood goes on without a reader
	m, err := d.Recover(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); err != nil {
		t.Errorf("PatchMetadata: %v", err)
	}
	recycled := h
	recycled.PID = os.Getpid()
	if _, err := d.Recover(t.Context(), recycled); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Recover of another process: %v", err)
	}
	upgraded := h
	upgraded.Executable = "0:1:2"
	if _, err := d.Recover(t.Context(), upgraded); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Recover of a process that runs another file: %v", err)
	}
	began := time.Now()
	if err := unix.Kill(h.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	t.Logf("%+v, known after %v", m.Exit(), time.Since(began).Round(time.Microsecond))
	if r := m.Exit().Reason; r != vmm.ExitUnknown && r != vmm.ExitSignal {
		t.Errorf("it ended for %q", r)
	}
}

// TestHostKilledAtEveryStep kills a starter at each step of a start, and has each step fail. Remove leaves nothing.
func TestHostKilledAtEveryStep(t *testing.T) {
	d := realDriver(t)
	for _, point := range Failpoints() {
		t.Run(point, func(t *testing.T) {
			cfg := realConfig(t)
			out, err := starter(t, cfg, failpoint.Env+"="+point+"=kill").CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("the starter was not killed: %v\n%s", err, out)
			}
			if err := d.Remove(t.Context(), cfg.ID); err != nil {
				t.Errorf("Remove: %v", err)
			}
			nothingOnHost(t)
			out, err = starter(t, cfg, failpoint.Env+"="+point+"=error").CombinedOutput()
			if err == nil || !strings.Contains(string(out), point) {
				t.Errorf("the start did not fail, or its error does not name %s: %v\n%s", point, err, out)
			}
			nothingOnHost(t)
		})
	}
}

// TestHostConsoleFlood has guests write to their serial port without end, asked for or not.
func TestHostConsoleFlood(t *testing.T) {
	d := realDriver(t)
	for _, console := range []bool{true, false} {
		t.Run(fmt.Sprintf("console %v", console), func(t *testing.T) {
			cfg := realConfig(t)
			cfg.Console = console
			guestDoes(&cfg, "flood")
			m := run(t, d, cfg)
			for deadline := time.Now().Add(patience); console; time.Sleep(100 * time.Millisecond) {
				if _, text := m.ConsoleTail(1 << 20); len(text) > 100 {
					t.Logf("%d bytes of console, such as %q", len(text), text[:60])
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("no console output came")
				}
			}
			time.Sleep(3 * time.Second)
			log, text := m.ConsoleTail(1 << 20)
			if len(log) > 64<<10 || len(text) > 64<<10 || strings.Contains(text, "\x1b") || !console && text != "" {
				t.Errorf("%d bytes of log and %d of console are kept", len(log), len(text))
			}
			if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); err != nil {
				t.Errorf("the flood held the API up: %v", err)
			}
			if size := sizeOf(t, filepath.Join(stateDir, "jail/firecracker", cfg.ID)); size > 8<<20 {
				t.Errorf("the jail takes %d bytes of its own on disk", size)
			}
		})
	}
}

// sizeOf adds up the blocks of files that are only in dir.
func sizeOf(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			size += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
