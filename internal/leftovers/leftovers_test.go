package leftovers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/statefile"
)

// world is a host made of files.
type world struct {
	t *testing.T
	*host
}

func newWorld(t *testing.T) world {
	root := t.TempDir()
	none := func() ([]string, error) { return nil, nil }
	w := world{t, &host{state: filepath.Join(root, "state"), proc: filepath.Join(root, "proc"), sys: filepath.Join(root, "sys"),
		netns: filepath.Join(root, "netns"), links: none, tables: none,
		loopName: func(string) (string, error) { return "", nil }}}
	w.file(filepath.Join(w.proc, "self/mountinfo"), "")
	w.file(filepath.Join(w.proc, "locks"), "")
	return w
}

func (w world) file(path, content string) {
	w.t.Helper()
	w.dir(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// record writes a sandbox's record.
func (w world) record(owner, text string) {
	w.t.Helper()
	path := filepath.Join(w.state, sandboxDir, owner, recordFile)
	w.dir(filepath.Dir(path))
	if err := statefile.Write(path, json.RawMessage(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w world) dir(path string) {
	w.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func (w world) link(target, path string) {
	w.t.Helper()
	w.dir(filepath.Dir(path))
	if err := os.Symlink(target, path); err != nil {
		w.t.Fatal(err)
	}
}

// want compares what is found with lines of the form "kind name owner", in which STATE, SYS and NETNS stand for the folders.
func (w world) want(find func() ([]Object, error), lines ...string) {
	w.t.Helper()
	got, err := find()
	if err != nil {
		w.t.Fatal(err)
	}
	short := strings.NewReplacer(w.state, "STATE", w.sys, "SYS", w.netns, "NETNS")
	var text []string
	for _, o := range got {
		text = append(text, short.Replace(o.String()))
	}
	slices.Sort(lines)
	if diff := cmp.Diff(lines, text); diff != "" {
		w.t.Errorf("found (-want +got):\n%s", diff)
	}
}

func (w world) all() ([]Object, error)      { return w.find(w.t.Context()) }
func (w world) leftOver() ([]Object, error) { return w.left(w.t.Context()) }

func TestNothingOnACleanHost(t *testing.T) {
	w := newWorld(t)
	w.want(w.all)
	w.file(filepath.Join(w.proc, "1/cgroup"), "0::/wrenn-other/x\n")
	w.file(filepath.Join(w.sys, "block/dm-0/dm/name"), "vg-root\n")
	w.file(filepath.Join(w.sys, "block/loop0/loop/backing_file"), "/srv/other.img\n")
	w.file(filepath.Join(w.netns, "other"), "")
	w.links = func() ([]string, error) { return []string{"lo", "eth0", "wren0"}, nil }
	w.tables = func() ([]string, error) { return []string{"inet filter", "ip wrenn2"}, nil }
	w.file(filepath.Join(w.proc, "self/mountinfo"), fmt.Sprintf("1 0 0:1 / / rw\n2 1 0:2 / %s rw\n3 1 0:3 / %s/images rw\n", w.state, w.state))
	w.dir(filepath.Join(w.state, sandboxDir))
	w.want(w.all)
}

// furnish puts one of each kind on the host, all of one sandbox.
func (w world) furnish(owner string) {
	w.file(filepath.Join(w.proc, "700/cgroup"), "0::/wrenn/"+owner+"\n")
	w.file(filepath.Join(w.proc, "700/comm"), "firecracker\n")
	w.dir(filepath.Join(w.sys, "fs/cgroup/wrenn", owner))
	w.file(filepath.Join(w.netns, "wrenn-3"), "")
	w.link(owner, filepath.Join(w.state, slotDir, "3"))
	w.links = func() ([]string, error) { return []string{"lo", "wrenn-v3"}, nil }
	w.tables = func() ([]string, error) { return []string{"inet wrenn"}, nil }
	w.file(filepath.Join(w.sys, "block/dm-0/dm/name"), "wrenn-"+owner+"\n")
	w.file(filepath.Join(w.sys, "block/dm-1/dm/name"), "odd\n")
	w.file(filepath.Join(w.sys, "block/dm-1/dm/uuid"), "WRENN-"+owner+"-base\n")
	w.file(filepath.Join(w.sys, "block/loop0/loop/backing_file"), filepath.Join(w.state, sandboxDir, owner, "cow")+"\n")
	w.file(filepath.Join(w.proc, "self/mountinfo"), fmt.Sprintf("2 1 0:2 / %s rw\n", filepath.Join(w.netns, "wrenn-3")))
	w.dir(filepath.Join(w.state, jailDir, "firecracker", owner, "root"))
	w.dir(filepath.Join(w.state, sandboxDir, owner))
}

func furnished(owner string) []string {
	of := " of " + owner
	return []string{
		"cgroup SYS/fs/cgroup/wrenn", "cgroup SYS/fs/cgroup/wrenn/" + owner + of, "chroot STATE/jail/firecracker/" + owner + of,
		"dm odd" + of, "dm wrenn-" + owner + of, "file STATE/sandboxes/" + owner + of, "file STATE/slots/3" + of,
		"link wrenn-v3" + of, "loop /dev/loop0 on STATE/sandboxes/" + owner + "/cow" + of, "mount NETNS/wrenn-3" + of,
		"netns NETNS/wrenn-3" + of, "nft table inet wrenn", "process 700 (firecracker)" + of,
	}
}

func TestEveryKindIsFound(t *testing.T) {
	w, owner := newWorld(t), id.New()
	w.furnish(owner)
	w.want(w.all, furnished(owner)...)
	w.want(w.leftOver, furnished(owner)...)
}

func TestWhatTheLivingOwnIsNotLeft(t *testing.T) {
	w, owner := newWorld(t), id.New()
	w.furnish(owner)
	lock := filepath.Join(w.state, sandboxDir, owner, lockFile)
	w.file(lock, "")
	w.want(w.leftOver, furnished(owner)...)
	info, err := os.Stat(lock)
	if err != nil {
		t.Fatal(err)
	}
	dev, ino := deviceAndInode(info)
	w.file(filepath.Join(w.proc, "locks"), fmt.Sprintf("1: POSIX  ADVISORY  WRITE 1 00:01:1 0 EOF\n2: FLOCK  ADVISORY  WRITE 700 %s 0 EOF\n", inode(dev, ino)))
	w.want(w.leftOver)
}

// TestReadySlotsAreNotLeft while a process keeps them.
func TestReadySlotsAreNotLeft(t *testing.T) {
	w := newWorld(t)
	w.file(filepath.Join(w.netns, "wrenn-3"), "")
	w.link("ready", filepath.Join(w.state, slotDir, "3"))
	w.links = func() ([]string, error) { return []string{"wrenn-v3"}, nil }
	w.tables = func() ([]string, error) { return []string{"inet wrenn"}, nil }
	lock := filepath.Join(w.state, readyLock)
	w.file(lock, "")
	all := []string{"file STATE/slots/3 of ready", "link wrenn-v3 of ready", "netns NETNS/wrenn-3 of ready", "nft table inet wrenn"}
	w.want(w.leftOver, all...)
	info, err := os.Stat(lock)
	if err != nil {
		t.Fatal(err)
	}
	w.file(filepath.Join(w.proc, "locks"), fmt.Sprintf("1: FLOCK  ADVISORY  WRITE 700 %s 0 EOF\n", inode(deviceAndInode(info))))
	w.want(w.leftOver)
	w.want(w.all, all...)
}

func TestWhatWasKeptIsNotLeft(t *testing.T) {
	w, owner := newWorld(t), id.New()
	w.furnish(owner)
	for _, left := range []string{`{"kept":true,"state":"starting"}`, `{"kept":false,"state":"running"}`, `{"kept":false,"state":"lost"}`,
		`{"kept":true,"state":"lost","slot":3}`, `{"kept":true,"state":"failed","machine":{"pid":4}}`} {
		w.record(owner, left)
		w.want(w.leftOver, furnished(owner)...)
	}
	for _, stays := range []string{`{"kept":true,"state":"running"}`, `{"kept":false,"state":"paused"}`, `{"kept":true,"state":"failed"}`,
		`{"kept":true,"state":"lost"}`} {
		w.record(owner, stays)
		w.want(w.leftOver)
	}
	for _, damaged := range []string{"", `{"kept":false,"state":"running"}`} {
		w.file(filepath.Join(w.state, sandboxDir, owner, recordFile), damaged)
		w.want(w.leftOver)
	}
}

// builds puts builds on the host: a template's, with one that it needs, one that nobody needs, and what an interrupted freeze leaves.
func (w world) builds(owner string) {
	root := filepath.Join(w.state, buildDir)
	w.file(filepath.Join(root, "bd-a", manifestFile), `{"build":"bd-a","needs":[{"build":"bd-b","manifest":"00"}]}`+"\n{}\n")
	for _, build := range []string{"bd-b", "bd-c"} {
		w.file(filepath.Join(root, build, manifestFile), `{}`)
	}
	w.file(filepath.Join(root, refDir, "template", "tp-x"), "bd-a\n")
	w.file(filepath.Join(root, refDir, "template", ".new-tp-y"), "bd-c\n")
	w.file(filepath.Join(root, refDir, "sandbox", owner), "bd-a\n")
	w.file(filepath.Join(root, refDir, "fork", owner), "bd-a\n")
	w.dir(filepath.Join(root, ".new-bd-d"))
	w.dir(filepath.Join(root, ".gone-bd-e"))
	w.file(filepath.Join(w.state, workingSetDir, "bd-a"), "")
	w.file(filepath.Join(w.state, workingSetDir, "bd-e"), "")
}

func TestBuilds(t *testing.T) {
	w, owner := newWorld(t), id.New()
	w.builds(owner)
	unfinished := []string{"file STATE/builds/.gone-bd-e", "file STATE/builds/.new-bd-d", "file STATE/builds/refs/template/.new-tp-y"}
	unneeded := []string{"file STATE/builds/bd-c", "file STATE/working-sets/bd-e"}
	owned := []string{"file STATE/builds/refs/fork/" + owner + " of " + owner, "file STATE/builds/refs/sandbox/" + owner + " of " + owner}
	w.want(w.leftOver, slices.Concat(unfinished, unneeded, owned)...)
	w.record(owner, `{"state":"paused"}`)
	w.want(w.leftOver, unfinished...)
	// A build that is being made is not left behind.
	info, err := os.Stat(filepath.Join(w.state, buildDir, ".new-bd-d"))
	if err != nil {
		t.Fatal(err)
	}
	w.file(filepath.Join(w.proc, "locks"), fmt.Sprintf("1: FLOCK  ADVISORY  WRITE 700 %s 0 EOF\n", inode(deviceAndInode(info))))
	w.want(w.leftOver, slices.Delete(unfinished, 1, 2)...)
}

// TestNobodyKnowsWhatABrokenReferenceNeeds: then no build is said to be left.
func TestNobodyKnowsWhatABrokenReferenceNeeds(t *testing.T) {
	w := newWorld(t)
	root := filepath.Join(w.state, buildDir)
	w.file(filepath.Join(root, "bd-a", manifestFile), "{}")
	w.want(w.all, "file STATE/builds/bd-a")
	for _, text := range []string{"", "bd-b", "bd-../x", "../bd-a"} {
		w.file(filepath.Join(root, refDir, "snapshot", "broken"), text)
		w.want(w.all)
	}
	w.file(filepath.Join(root, "bd-b", manifestFile), "{")
	w.file(filepath.Join(root, refDir, "snapshot", "broken"), "bd-b\n")
	w.want(w.all)
}

func TestAProcessIsKnownByItsRoot(t *testing.T) {
	w, owner := newWorld(t), id.New()
	root := filepath.Join(w.state, jailDir, "firecracker", owner, "root")
	w.dir(root)
	w.link(root, filepath.Join(w.proc, "8/root"))
	w.link("/", filepath.Join(w.proc, "9/root"))
	w.link(filepath.Join(root, "firecracker"), filepath.Join(w.proc, "9/exe"))
	w.want(w.processes, "process 8 of "+owner, "process 9 of "+owner)
}

func TestUnescape(t *testing.T) {
	for in, out := range map[string]string{`/a\040b`: "/a b", `/a\134`: `/a\`, `/a\9`: `/a\9`, `/a\`: `/a\`, "": ""} {
		if got := unescape(in); got != out {
			t.Errorf("unescape(%q) = %q, want %q", in, got, out)
		}
	}
}

func TestChanges(t *testing.T) {
	before, now := Baseline{}, Baseline{}
	before.add("link %s", "eth0")
	before.add("mount /mnt")
	now.add("link %s", "eth0")
	now.add("mount /srv")
	if diff := cmp.Diff([]string{"gone: mount /mnt", "new: mount /srv"}, before.Changes(now)); diff != "" {
		t.Error(diff)
	}
	if got := now.Changes(now); got != nil {
		t.Error(got)
	}
}
