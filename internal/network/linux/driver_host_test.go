//go:build hosttest

package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/leftovers"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/networktest"
)

func uid(slot int) int { return 1900000000 + slot }

// newDriver makes a driver with a state folder of its own, and looks afterwards that nothing is left and that nothing
// foreign was touched.
func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	nothingLeft(t, cfg.StateDir)
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func nothingLeft(t *testing.T, stateDir string) {
	t.Helper()
	before, err := leftovers.Foreign(t.Context(), stateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		left, err := leftovers.Find(ctx, stateDir)
		if err != nil {
			t.Error(err)
		}
		for _, o := range left {
			t.Errorf("left: %s", o)
		}
		after, err := leftovers.Foreign(ctx, stateDir)
		if err != nil {
			t.Error(err)
		}
		for _, change := range before.Changes(after) {
			t.Errorf("touched: %s", change)
		}
	})
}

// acquire takes a slot for the length of the test.
func acquire(t *testing.T, d *Driver, policy network.Policy) (string, network.Slot) {
	t.Helper()
	sandbox := id.New()
	s, err := d.Acquire(t.Context(), sandbox, policy, uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release(t, d, sandbox) })
	return sandbox, s
}

func release(t *testing.T, d *Driver, sandbox string) {
	t.Helper()
	if err := d.Release(context.WithoutCancel(t.Context()), sandbox); err != nil {
		t.Error(err)
	}
}

func TestDriverPassesTheSuite(t *testing.T) {
	networktest.Run(t, func(t *testing.T) networktest.Host {
		return networktest.Host{
			Driver: newDriver(t, Config{Slots: networktest.Slots}),
			Serve: func(t *testing.T, sandbox string, slot network.Slot, port int) {
				go serve(newGuest(t, sandbox, slot).listen("tcp4", ":"+strconv.Itoa(port)))
			},
		}
	})
}

// TestTheTAPIsItsOwnersOnly opens the TAP as Firecracker does, without any privilege, as its owner and as somebody else.
func TestTheTAPIsItsOwnersOnly(t *testing.T) {
	d := newDriver(t, Config{})
	_, s := acquire(t, d, network.Policy{})
	for _, c := range []struct {
		who  int
		want bool
	}{{uid(s.Index), true}, {uid(s.Index + 1), false}, {65534, false}} {
		err := inside(s.NetNS, func(*os.File) error {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperOpensTheTAP$")
			cmd.Env = append(os.Environ(), "WRENN_TEST_HELPER=tap")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.who), Gid: uint32(c.who)}}
			tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0) // the node itself is root's; the jailer makes one for the jail
			if err != nil {
				return err
			}
			defer tun.Close()
			cmd.ExtraFiles = []*os.File{tun}
			return cmd.Run()
		})
		if (err == nil) != c.want {
			t.Errorf("uid %d: %v, want success %v", c.who, err, c.want)
		}
	}
}

func TestHelperOpensTheTAP(t *testing.T) {
	if os.Getenv("WRENN_TEST_HELPER") != "tap" {
		return
	}
	req, err := unix.NewIfreq(network.TAPName)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(3, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
}

// TestTwoStateFoldersShareAHost has two services of one machine: neither takes or removes what is the other's.
func TestTwoStateFoldersShareAHost(t *testing.T) {
	a, b := newDriver(t, Config{}), newDriver(t, Config{})
	ida, sa := acquire(t, a, network.Policy{Internet: true})
	idb, sb := acquire(t, b, network.Policy{Internet: true})
	if sa.Index == sb.Index {
		t.Fatalf("both have slot %d", sa.Index)
	}
	// A process of b that was killed between its link and its namespace leaves a link to a slot that a has taken meanwhile.
	dead := id.New()
	if err := b.slots.claim(sa.Index, dead); err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range []string{dead, idb, ida} {
		release(t, b, sandbox)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if ids, err := b.List(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("List of b = %v, %v", ids, err)
	}
	go serve(newGuest(t, ida, sa).listen("tcp4", ":7"))
	conn, err := a.Dial(t.Context(), ida, 7)
	if err != nil {
		t.Fatalf("a's sandbox is gone: %v", err)
	}
	conn.Close()
}

// TestOrphanIsListedAndReleased takes the link away, as somebody does who empties the state folder.
func TestOrphanIsListedAndReleased(t *testing.T) {
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{})
	if err := d.slots.free(s.Index); err != nil {
		t.Fatal(err)
	}
	if ids, err := d.List(t.Context()); err != nil || len(ids) != 1 || ids[0] != sandbox {
		t.Errorf("List = %v, %v", ids, err)
	}
	if _, next := acquire(t, d, network.Policy{}); next.Index == s.Index {
		t.Errorf("the orphan's slot %d was given again", s.Index)
	}
	release(t, d, sandbox)
	if _, err := os.Lstat(s.NetNS); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", s.NetNS, err)
	}
}

// TestForeignNamespaceStays has a namespace under a name of ours that we did not make.
func TestForeignNamespaceStays(t *testing.T) {
	d := newDriver(t, Config{})
	unlock, err := lockHost()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(shareNames(), makeNamespace(netnsPath(0), "somebody else's"))
	unlock()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unname(netnsPath(0)) }()
	sandbox, s := acquire(t, d, network.Policy{})
	if s.Index == 0 {
		t.Error("slot 0 was given")
	}
	if ids, err := d.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("List = %v, %v", ids, err)
	}
	release(t, d, sandbox)
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if text, err := namespaceLabel(netnsPath(0)); err != nil || text != "somebody else's" {
		t.Errorf("label %q, %v", text, err)
	}
	// What serves all slots stays while it could serve this one; the end of the test looks that it goes now.
	if err := errors.Join(unname(netnsPath(0)), d.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestStrayPairIsSwept loses the name of a namespace that a process still is in.
func TestStrayPairIsSwept(t *testing.T) {
	d := newDriver(t, Config{})
	sandbox := id.New()
	s, err := d.Acquire(t.Context(), sandbox, network.Policy{}, uid)
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(s.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := errors.Join(unname(s.NetNS), d.slots.free(s.Index)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
	err = withHandle(func(h *netlink.Handle) error { _, err := h.LinkByName(linkName(s.Index)); return err })
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		t.Errorf("%s: %v, want none", linkName(s.Index), err)
	}
}

// TestForwardingIsAsBefore looks at what the driver turns on, and that it turns off that and no more.
func TestForwardingIsAsBefore(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{})
	read := func() string {
		uplink, err1 := getSysctl(forwardingOf("world-host"))
		lo, err2 := getSysctl(forwardingOf("lo"))
		all, err3 := getSysctl("ipv4/ip_forward")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		return uplink + lo + all
	}
	if got := read(); got != "000" {
		t.Fatalf("before: %s", got)
	}
	first, _ := acquire(t, d, network.Policy{})
	second, _ := acquire(t, d, network.Policy{})
	if got := read(); got != "100" {
		t.Errorf("with sandboxes: %s, want the uplink alone", got)
	}
	release(t, d, first)
	if got := read(); got != "100" {
		t.Errorf("with one sandbox: %s, want the uplink alone", got)
	}
	release(t, d, second)
	if got := read(); got != "000" {
		t.Errorf("after: %s", got)
	}
	// Somebody makes the whole host forward meanwhile: that stays.
	third, _ := acquire(t, d, network.Policy{})
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	release(t, d, third)
	if got := read(); got != "111" {
		t.Errorf("after somebody turned it on: %s", got)
	}
	if err := setSysctl("ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
}

// TestTheHostIsNoRouter sends a packet from one network of the host to another while sandboxes run.
func TestTheHostIsNoRouter(t *testing.T) {
	w, _ := newWorld(t)
	d := newDriver(t, Config{})
	lan := newSpace(t)
	err := withHandle(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "lan-host"
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "lan-away", netlink.NsFd(lan.ns.Fd())
		if err := h.LinkAdd(pair); err != nil {
			return err
		}
		t.Cleanup(func() { _ = netlink.LinkDel(pair) })
		return give(h, "lan-host", "12.0.0.1/30")
	})
	if err != nil {
		t.Fatal(err)
	}
	lan.do(func(h *netlink.Handle) error { return give(h, "lan-away", "12.0.0.2/30") })
	w.do(func(h *netlink.Handle) error {
		dst, err := netlink.ParseIPNet("12.0.0.0/30")
		if err != nil {
			return err
		}
		return h.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(hostV4)})
	})
	acquire(t, d, network.Policy{Internet: true})
	sn := lan.sniff()
	w.send("", "12.0.0.2:9")
	time.Sleep(silence)
	for _, f := range sn.flows() {
		if f.from == netip.MustParseAddr(worldV4) {
			t.Errorf("the host routed %v", f)
		}
	}
}

// TestTableOfAnotherVersionIsReplaced finds a table with other rules: its open slots stay open.
func TestTableOfAnotherVersionIsReplaced(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, s)
	old := hostTable()
	old.Chains = old.Chains[1:]
	if err := replaceTable(old); err != nil {
		t.Fatal(err)
	}
	acquire(t, d, network.Policy{})
	if exists, current, err := findHostTable(); err != nil || !exists || !current {
		t.Errorf("table: exists %v, current %v, %v", exists, current, err)
	}
	reaches(t, g, public[0])
}

// TestSlotsAreQuick reports how long a slot takes; an emulated host is too slow to hold it to a figure.
func TestSlotsAreQuick(t *testing.T) {
	d := newDriver(t, Config{})
	keeper, _ := acquire(t, d, network.Policy{Internet: true})
	defer release(t, d, keeper)
	const rounds = 10
	var making, removing time.Duration
	for range rounds {
		sandbox := id.New()
		began := time.Now()
		if _, err := d.Acquire(t.Context(), sandbox, network.Policy{Internet: true}, uid); err != nil {
			t.Fatal(err)
		}
		made := time.Now()
		release(t, d, sandbox)
		making += made.Sub(began)
		removing += time.Since(made)
	}
	t.Logf("acquire %v, release %v", making/rounds, removing/rounds)
}

// TestStateFolderHoldsTheOwner looks at what a person finds in the state folder.
func TestStateFolderHoldsTheOwner(t *testing.T) {
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{})
	target, err := os.Readlink(filepath.Join(d.stateDir, "slots", strconv.Itoa(s.Index)))
	if err != nil || target != sandbox {
		t.Errorf("link: %q, %v", target, err)
	}
	if text, err := namespaceLabel(s.NetNS); err != nil || !strings.Contains(text, sandbox) {
		t.Errorf("label: %q, %v", text, err)
	}
}
