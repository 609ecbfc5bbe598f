package firecracker

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

// exited and signaled are wait statuses as the kernel packs them.
func exited(code int) unix.WaitStatus             { return unix.WaitStatus(code << 8) }
func signaled(signal unix.Signal) unix.WaitStatus { return unix.WaitStatus(signal) }

func TestExitOf(t *testing.T) {
	for name, c := range map[string]struct {
		o      outcome
		reason vmm.ExitReason
		code   int
		signal int
		says   string
	}{
		"guest":                 {outcome{status: exited(0), known: true}, vmm.ExitGuest, 0, 0, "guest"},
		"guest, as it was shot": {outcome{status: exited(0), known: true, killed: true}, vmm.ExitGuest, 0, 0, "guest"},
		"killed":                {outcome{status: signaled(unix.SIGKILL), known: true, killed: true}, vmm.ExitKilled, -1, 9, "request"},
		"killed, memory full":   {outcome{status: signaled(unix.SIGKILL), known: true, killed: true, oom: true}, vmm.ExitKilled, -1, 9, "request"},
		"memory":                {outcome{status: signaled(unix.SIGKILL), known: true, oom: true}, vmm.ExitOOM, -1, 9, "memory limit"},
		"memory, not collected": {outcome{oom: true}, vmm.ExitOOM, -1, 0, "memory limit"},
		"signal":                {outcome{status: signaled(unix.SIGKILL), known: true}, vmm.ExitSignal, -1, 9, "SIGKILL"},
		"bad system call":       {outcome{status: exited(148), known: true}, vmm.ExitError, 148, 0, "seccomp"},
		"its own error":         {outcome{status: exited(1), known: true}, vmm.ExitError, 1, 0, "code 1"},
		"an unknown code":       {outcome{status: exited(77), known: true}, vmm.ExitError, 77, 0, "code 77"},
		"not collected":         {outcome{}, vmm.ExitUnknown, -1, 0, "nobody"},
		"killed, not collected": {outcome{killed: true}, vmm.ExitKilled, -1, 0, "request"},
	} {
		e := exitOf(c.o)
		if e.Reason != c.reason || e.Code != c.code || e.Signal != c.signal || !strings.Contains(e.Detail, c.says) || e.Time.IsZero() {
			t.Errorf("%s: %+v, want %s, code %d, signal %d", name, e, c.reason, c.code, c.signal)
		}
	}
}

func TestRequests(t *testing.T) {
	cfg := vmm.Config{
		ID: id.New(), VCPUs: 2, MemoryMiB: 256, BootArgs: "quiet",
		Drives: []vmm.Drive{{ID: "rootfs", Path: "/dev/dm-3"}, {ID: "modules", Path: "/x", ReadOnly: true}},
	}
	text := func(v release.Version) string {
		var lines []string
		for _, r := range requests(&cfg, v.Features()) {
			body, err := json.Marshal(r.body)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, r.path+" "+string(body))
		}
		return strings.Join(lines, "\n")
	}
	const bare = `/machine-config {"vcpu_count":2,"mem_size_mib":256}
/boot-source {"kernel_image_path":"/kernel","initrd_path":"/initramfs","boot_args":"quiet"}
/drives/rootfs {"drive_id":"rootfs","path_on_host":"/drives/rootfs","is_root_device":false,"is_read_only":false}
/drives/modules {"drive_id":"modules","path_on_host":"/drives/modules","is_root_device":false,"is_read_only":true}
/entropy {}`
	if got := text(release.Version{Major: 1, Minor: 12}); got != bare {
		t.Errorf("1.12 is sent:\n%s\nwant:\n%s", got, bare)
	}
	const limited = bare + "\n" + `/serial {"rate_limiter":{"size":65536,"refill_time":1000}}`
	if got := text(release.Version{Major: 1, Minor: 16}); got != limited {
		t.Errorf("1.16 is sent:\n%s\nwant:\n%s", got, limited)
	}
	cfg.Drives = nil
	cfg.NIC, cfg.Metadata = &vmm.NIC{TAP: "tap0", MAC: "02:00:00:00:00:01"}, map[string]any{"a": "b"}
	const network = `/network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"02:00:00:00:00:01"}
/mmds/config {"version":"V2","network_interfaces":["eth0"]}
/mmds {"a":"b"}`
	if got := text(release.Version{Major: 1, Minor: 12}); !strings.Contains(got, network) {
		t.Errorf("with a network is sent:\n%s\nwant in it:\n%s", got, network)
	}
}

func TestJailerArguments(t *testing.T) {
	l := launch{id: "cl-x", exec: "/opt/firecracker", jailer: "/opt/jailer", base: "/state/jail", netns: "/run/netns/n", uid: 7, gid: 8,
		maxFileSize: 123}
	args := strings.Join(l.args(), " ")
	for _, want := range []string{
		"--id cl-x", "--exec-file /opt/firecracker", "--uid 7", "--gid 8", "--chroot-base-dir /state/jail", "--netns /run/netns/n",
		"--cgroup-version 2", "--parent-cgroup wrenn/cl-x", "--resource-limit fsize=123", "--resource-limit no-file=2048",
		"-- --api-sock /run/firecracker.socket --log-path /log",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q lacks %q", args, want)
		}
	}
	for _, never := range []string{"--no-seccomp", "--seccomp-filter", "--enable-pci", "--daemonize"} {
		if strings.Contains(args, never) {
			t.Errorf("%q has %q", args, never)
		}
	}
}

func TestMaxFileSize(t *testing.T) {
	s := start{cfg: vmm.Config{MemoryMiB: 128}}
	if got := s.maxFileSize(); got < 128<<20+16<<20 {
		t.Errorf("%d bytes do not hold a snapshot", got)
	}
}

const threadStatus = "Name:\tfc_vcpu 0\nTgid:\t42\nPid:\t%P\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \nNSpid:\t42\t1\n" +
	"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t%C\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n" +
	"NoNewPrivs:\t1\nSeccomp:\t%S\n"

func thread(pid, caps, seccomp string) []byte {
	return []byte(strings.NewReplacer("%P", pid, "%C", caps, "%S", seccomp).Replace(threadStatus))
}

func TestAddStatusKeepsTheWeakestThread(t *testing.T) {
	add := func(threads ...[]byte) vmm.Confinement {
		c := vmm.Confinement{Seccomp: -1}
		for _, th := range threads {
			if err := addStatus(&c, th); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	confined := thread("42", "0", "2")
	c := add(confined, thread("43", "0", "2"))
	if c.UID != 7 || c.GID != 8 || c.Seccomp != 2 || c.Caps != 0 || len(c.Groups) != 0 || c.NewPrivs || !slices.Equal(c.NSPids, []int{42, 1}) {
		t.Errorf("%+v", c)
	}
	if c := add(confined, thread("43", "0000000000000001", "0")); c.Seccomp != 0 || c.Caps != 1 {
		t.Errorf("the weaker thread is not seen: %+v", c)
	}
	other := []byte(strings.Replace(string(confined), "Uid:\t7\t7", "Uid:\t7\t0", 1))
	if c := add(confined, other); c.UID != -1 {
		t.Errorf("a thread of another uid is not seen: %+v", c)
	}
	free := []byte(strings.Replace(string(confined), "NoNewPrivs:\t1", "NoNewPrivs:\t0", 1))
	if c := add(free, confined); !c.NewPrivs {
		t.Errorf("a thread that may gain privileges is not seen: %+v", c)
	}
}

func FuzzAddStatus(f *testing.F) {
	f.Add(thread("42", "0", "2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := vmm.Confinement{Seccomp: -1}
		_ = addStatus(&c, data)
	})
}
