package hostcheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// world is a host made of files.
type world struct {
	t    *testing.T
	root string
	host
}

func newWorld(t *testing.T) world {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	return world{t, root, host{Options: Options{StateDir: at("state"), UIDBase: 1000, Slots: 10},
		proc: at("proc"), sys: at("sys"), etc: at("etc"), dev: at("dev")}}
}

// put writes a file of the host.
func (w world) put(name, content string) world {
	w.t.Helper()
	path := filepath.Join(w.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return w
}

// want fails the test unless the last item stands so and speaks of the words.
func want(t *testing.T, items []Item, state State, words ...string) {
	t.Helper()
	item := items[len(items)-1]
	if item.State != state {
		t.Errorf("%s is %s, want %s: %s", item.Name, item.State, state, item.Detail)
	}
	if (item.State == OK) != (item.Fix == "") {
		t.Errorf("%s is %s and its fix is %q", item.Name, item.State, item.Fix)
	}
	for _, word := range words {
		if !strings.Contains(item.Detail, word) {
			t.Errorf("%s: %q does not say %q", item.Name, item.Detail, word)
		}
	}
}

func TestPrivileges(t *testing.T) {
	ctx := t.Context()
	status := func(uid, caps string) world {
		return newWorld(t).put("proc/self/status", "Name:\twrenn\nUid:\t"+uid+"\nCapEff:\t"+caps+"\n")
	}
	want(t, status("0 0 0 0", "000001ffffffffff").privileges(ctx), OK)
	want(t, status("1000 1000 1000 1000", "0").privileges(ctx), Fail, "not root")
	want(t, status("0 0 0 0", "00000000a80425fb").privileges(ctx), Fail, "CAP_NET_ADMIN", "CAP_SYS_ADMIN")
	want(t, newWorld(t).privileges(ctx), Fail)
}

func TestKernel(t *testing.T) {
	for release, state := range map[string]State{"5.9.0": Fail, "4.19.0-27-amd64": Fail, "5.10.0": OK, "6.12.1+deb13": OK, "odd": Warning} {
		want(t, newWorld(t).put("proc/sys/kernel/osrelease", release+"\n").kernel(t.Context()), state, release)
	}
}

func TestMissingDevices(t *testing.T) {
	ctx, w := t.Context(), newWorld(t)
	want(t, w.kvm(ctx), Fail, "kvm")
	want(t, w.loop(ctx), Fail, "loop-control")
	want(t, w.network(ctx), Fail, "tun")
	w.put("dev/kvm", "")
	want(t, w.kvm(ctx), Fail)
}

func TestCgroups(t *testing.T) {
	ctx := t.Context()
	want(t, newWorld(t).cgroups(ctx), Fail)
	want(t, newWorld(t).put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io\n").cgroups(ctx), Fail, "memory")
	want(t, newWorld(t).put("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n").cgroups(ctx), OK)
}

func TestTuning(t *testing.T) {
	ctx := t.Context()
	const source = "sys/devices/system/clocksource/clocksource0/current_clocksource"
	want(t, newWorld(t).put(source, "tsc\n").clock(ctx), OK)
	want(t, newWorld(t).put(source, "hpet\n").clock(ctx), Warning, "hpet")
	want(t, newWorld(t).clock(ctx), Warning)
	want(t, newWorld(t).put("sys/devices/system/cpu/smt/active", "1\n").smt(ctx), Warning)
	want(t, newWorld(t).put("sys/devices/system/cpu/smt/active", "0\n").smt(ctx), OK)
	want(t, newWorld(t).put("sys/kernel/mm/ksm/run", "1\n").ksm(ctx), Warning)
	want(t, newWorld(t).put("sys/kernel/mm/ksm/run", "0\n").ksm(ctx), OK)
	const header = "Filename\tType\tSize\tUsed\tPriority\n"
	want(t, newWorld(t).put("proc/swaps", header).swap(ctx), OK)
	want(t, newWorld(t).put("proc/swaps", header+"/dev/sda2 partition 1 0 -2\n").swap(ctx), Warning, "1 area")
}

func TestStorageIsThatOfTheNearestFolder(t *testing.T) {
	w := newWorld(t)
	w.StateDir = filepath.Join(w.root, "not/there/yet")
	if path, err := w.stateFS(); err != nil || path != w.root {
		t.Errorf("%s, %v", path, err)
	}
	for _, items := range [][]Item{w.space(t.Context()), w.reflink(t.Context())} {
		if items[0].State != OK && items[0].Fix == "" {
			t.Errorf("%+v has no fix", items[0])
		}
	}
	if entries, err := os.ReadDir(w.root); err != nil || len(entries) != 0 {
		t.Errorf("the check left %v, %v", entries, err)
	}
}

func TestUIDRange(t *testing.T) {
	etc := func(w world) string { return w.etc }
	free := newWorld(t).put("etc/passwd", "root:x:0:0::/:\nme:x:999:999::/:\nyou:x:1010:10::/:\nbroken\n").put("etc/subuid", "me:100000:65536\n")
	if err := checkUIDRange(etc(free), 1000, 10); err != nil {
		t.Error(err)
	}
	want(t, free.uids(t.Context()), OK, "1000 to 1009")
	for name, w := range map[string]world{
		"an account":      newWorld(t).put("etc/passwd", "me:x:1009:1::/:\n"),
		"a group":         newWorld(t).put("etc/group", "me:x:1000:\n"),
		"somebody's uids": newWorld(t).put("etc/subuid", "me:500:501\n"),
		"somebody's gids": newWorld(t).put("etc/subgid", "me:1009:65536\n"),
	} {
		err := checkUIDRange(etc(w), 1000, 10)
		if field := (*errs.FieldError)(nil); !errors.As(err, &field) || field.Field != "--uid-base" || !strings.Contains(err.Error(), "me") {
			t.Errorf("%s: %v", name, err)
		}
		want(t, w.uids(t.Context()), Fail, "me")
	}
	for _, first := range []int{-1, 0, maxUID - 8} {
		if err := checkUIDRange(etc(free), first, 10); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("from %d: %v", first, err)
		}
	}
}

// script is a binary that says which version it is.
func (w world) script(name, version string) string {
	w.t.Helper()
	path := filepath.Join(w.root, "bin", name)
	w.put("bin/"+name, "#!/bin/sh\necho "+name+" v"+version+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func TestFirecracker(t *testing.T) {
	ctx := t.Context()
	pair := func(fc, jailer string) (world, []Item) {
		w := newWorld(t)
		w.Firecracker, w.Jailer = w.script("firecracker", fc), w.script("jailer", jailer)
		w.StateDir = "/proc/wrenn" // below a folder that only root can write to
		return w, w.firecracker(ctx)
	}
	_, items := pair("1.15.1", "1.15.1")
	want(t, items, OK, "none is known")
	_, items = pair("1.15.1", "1.14.4")
	want(t, items, Fail, "1.15.1", "1.14.4")
	_, items = pair("1.15.1", "1.9.0")
	want(t, items, Fail, "1.9.0")
	_, items = pair("1.12.1", "1.12.1")
	want(t, items, Warning, "1.12.1", "only root can write")
	_, items = pair("1.14.0", "1.14.0")
	want(t, items, Warning, "PCI is never turned on")
	w, _ := pair("1.12.1", "1.12.1")
	w.StateDir = filepath.Join(w.root, "state")
	if err := os.MkdirAll(w.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.StateDir, 0o777); err != nil {
		t.Fatal(err)
	}
	want(t, w.firecracker(ctx), Fail, w.StateDir, "by others than root")
	w.Jailer = filepath.Join(w.root, "nope")
	want(t, w.firecracker(ctx), Fail, "nope")
}

func TestReport(t *testing.T) {
	r := newWorld(t).check(t.Context())
	if r.Fit {
		t.Error("a host of nothing is fit")
	}
	var text bytes.Buffer
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, item := range r.Items {
		if names[item.Name] {
			t.Errorf("%s is there twice", item.Name)
		}
		names[item.Name] = true
		if !strings.Contains(text.String(), item.Name) || strings.Contains(item.Detail, "\n") {
			t.Errorf("%+v is not in the text, or not on a line", item)
		}
	}
	if !strings.Contains(text.String(), "can't run sandboxes") {
		t.Error(text.String())
	}
	data, err := json.Marshal(r)
	if err != nil || !strings.HasPrefix(string(data), `{"fit":false,"items":[{"name":"privileges","state":"fail"`) {
		t.Errorf("%s, %v", data, err)
	}
	if !(Report{Fit: true}).Fit {
		t.Error("fit")
	}
}
