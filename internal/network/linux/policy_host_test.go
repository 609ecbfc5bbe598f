//go:build hosttest

package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

func replaceTable(t nft.Table) error {
	open, err := nft.Members(t, setOpen)
	if err != nil {
		return err
	}
	routed, err := nft.Members(t, setRouted)
	if err != nil {
		return err
	}
	return nft.Put(t, nft.Elements{setOpen: open, setRouted: routed})
}

func findHostTable() (exists, current bool, err error) { return nft.Find(hostTable()) }

// reaches fails the test unless the guest has a conversation with the address.
func reaches(t *testing.T, g *guest, ip string) {
	t.Helper()
	conn, err := g.dial("tcp", "", net.JoinHostPort(ip, worldPort), time.Minute)
	if err != nil {
		t.Errorf("%s is out of reach: %v", ip, err)
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// tries sends TCP and UDP packets to the address and expects no answer.
func tries(t *testing.T, s *space, from, ip, port string) {
	t.Helper()
	to := net.JoinHostPort(ip, port)
	s.send(from, to)
	if conn, err := s.dial("tcp", from, to, silence/4); err == nil {
		conn.Close()
		t.Errorf("%s answered (source %q)", ip, from)
	}
}

// arrivals fails the test if the sniffer saw a packet to one of the addresses, or from a source other than the allowed.
func arrivals(t *testing.T, sn *sniffer, never []string, sources ...string) {
	t.Helper()
	time.Sleep(silence)
	sources = append(sources, worldV4, worldV6)
	for _, f := range sn.flows() {
		if slices.Contains(never, f.to.String()) {
			t.Errorf("a packet to %s came through, from %s", f.to, f.from)
		}
		// What the world itself says to the host is no concern; link-local and multicast IPv6 is the links' own.
		own := f.from.Is6() && (f.from.IsLinkLocalUnicast() || f.from.IsUnspecified() || f.to.IsMulticast())
		if !own && !slices.Contains(sources, f.from.String()) && !slices.Contains(slices.Concat(public, private, v6), f.from.String()) {
			t.Errorf("a packet left with a source that is not the host's: %s to %s", f.from, f.to)
		}
	}
}

// hostListener counts who reaches the host, over TCP and UDP, IPv4 and IPv6.
func hostListener(t *testing.T) *atomic.Int32 {
	t.Helper()
	seen := &atomic.Int32{}
	l, err := net.Listen("tcp", ":"+hostPort)
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", ":"+hostPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			seen.Add(1)
			conn.Close()
		}
	}()
	go func() {
		for buf := make([]byte, 100); ; seen.Add(1) {
			if _, _, err := p.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	return seen
}

func hostTargets(s network.Slot) []string {
	return []string{hostV4, hostV6, hostAddr(s.Index).String(), insideAddr(s.Index).String(), network.Gateway.String(), "fd77::1"}
}

// TestInternetAndNothingElse sends packets of a guest to every class of address.
func TestInternetAndNothingElse(t *testing.T) {
	_, sn := newWorld(t)
	seen := hostListener(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, s)
	for _, ip := range public {
		reaches(t, g, ip)
	}
	for _, ip := range slices.Concat(private, v6) {
		tries(t, g.space, "", ip, worldPort)
	}
	for _, ip := range hostTargets(s) {
		tries(t, g.space, "", ip, hostPort)
	}
	arrivals(t, sn, slices.Concat(private, v6), hostV4)
	if n := seen.Load(); n > 0 {
		t.Errorf("the host was reached %d times", n)
	}
}

// TestDeniedIsToldAtOnce looks that a program in the guest does not wait for a connection that can't be.
func TestDeniedIsToldAtOnce(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	_, err := newGuest(t, sandbox, s).dial("tcp", "", net.JoinHostPort("10.77.0.1", worldPort), time.Minute)
	if !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("a denied address: %v, want EHOSTUNREACH", err)
	}
}

// TestNothingWithoutPolicy closes even what is public.
func TestNothingWithoutPolicy(t *testing.T) {
	_, sn := newWorld(t)
	seen := hostListener(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{})
	g := newGuest(t, sandbox, s)
	for _, ip := range slices.Concat(public, private, v6) {
		tries(t, g.space, "", ip, worldPort)
	}
	for _, ip := range hostTargets(s) {
		tries(t, g.space, "", ip, hostPort)
	}
	arrivals(t, sn, slices.Concat(public, private, v6))
	if n := seen.Load(); n > 0 {
		t.Errorf("the host was reached %d times", n)
	}
	// The host reaches the guest all the same.
	go serve(g.listen("tcp4", ":7"))
	conn, err := d.Dial(t.Context(), sandbox, 7)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestSpoofedSourcesAreDropped has a guest speak under addresses that are not its own.
func TestSpoofedSourcesAreDropped(t *testing.T) {
	_, sn := newWorld(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, s)
	spoofed := []string{"8.8.4.4", "10.77.0.9", insideAddr(s.Index).String(), hostAddr(s.Index).String(), "198.18.0.99",
		"169.254.0.20", hostV4, worldV4}
	g.do(func(h *netlink.Handle) error { return give(h, "eth0", singles(spoofed)...) })
	for _, from := range spoofed {
		tries(t, g.space, from, public[1], worldPort)
	}
	arrivals(t, sn, public)
	// The wrong hardware address with the right IPv4 address.
	g.do(func(h *netlink.Handle) error {
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 9})
	})
	tries(t, g.space, network.GuestIP.String(), public[1], worldPort)
	arrivals(t, sn, public)
}

// TestGuestFramesThatNoStackSends injects what only a hostile guest makes.
func TestGuestFramesThatNoStackSends(t *testing.T) {
	_, sn := newWorld(t)
	d := newDriver(t, Config{})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, s)
	gateway, err := net.ParseMAC(network.GatewayMAC)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 { // ARP under many addresses would fill the neighbour table that all namespaces share
		g.inject(arpRequest(guestMAC(), netip.AddrFrom4([4]byte{169, 254, byte(i >> 6), byte(i)})))
	}
	g.inject(arpRequest(net.HardwareAddr{2, 0, 0, 0, 0, 9}, network.GuestIP))
	payload := udpPacket(netip.MustParseAddr("10.77.0.1"))
	for _, header := range [][]byte{
		{0x81, 0, 0, 5, 8, 0},                   // a VLAN
		{0x81, 0, 0, 0, 8, 0},                   // a VLAN tag that means none
		{0x88, 0xa8, 0, 5, 0x81, 0, 0, 5, 8, 0}, // two
		{0x88, 0x64},                            // PPPoE
		{0x08, 0x00},
	} {
		g.inject(slices.Concat(gateway, guestMAC(), header, payload))
	}
	arrivals(t, sn, private, hostV4)
	err = inside(s.NetNS, func(*os.File) error {
		return withHandle(func(h *netlink.Handle) error {
			list, err := h.NeighList(0, unix.AF_INET)
			for _, n := range list {
				if n.State != netlink.NUD_PERMANENT && n.State != netlink.NUD_NOARP {
					t.Errorf("the guest made a neighbour: %v", n)
				}
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	reaches(t, g, public[0])
}

func arpRequest(mac net.HardwareAddr, sender netip.Addr) []byte {
	broadcast := bytes.Repeat([]byte{255}, 6)
	return slices.Concat(broadcast, guestMAC(), []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, sender.AsSlice(),
		make([]byte, 6), network.Gateway.AsSlice())
}

// udpPacket is an IPv4 packet from the guest with a datagram of no content.
func udpPacket(to netip.Addr) []byte {
	p := make([]byte, 28)
	p[0], p[3], p[8], p[9] = 0x45, 28, 64, unix.IPPROTO_UDP
	copy(p[12:], network.GuestIP.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[20:], 1)
	binary.BigEndian.PutUint16(p[22:], 80)
	binary.BigEndian.PutUint16(p[24:], 8)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}

// TestSandboxesDoNotMeet has two guests, one of which tries every address that the other could have.
func TestSandboxesDoNotMeet(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{})
	ida, sa := acquire(t, d, network.Policy{Internet: true})
	idb, sb := acquire(t, d, network.Policy{Internet: true})
	a, b := newGuest(t, ida, sa), newGuest(t, idb, sb)
	go serve(b.listen("tcp4", ":80"))
	sn := b.sniff()
	a.do(func(h *netlink.Handle) error { return give(h, "eth0", "198.18.0.98/32") })
	for _, from := range []string{"", "198.18.0.98"} {
		for _, to := range []netip.Addr{hostAddr(sb.Index), insideAddr(sb.Index), network.Gateway} {
			tries(t, a.space, from, to.String(), worldPort)
		}
	}
	time.Sleep(silence)
	for _, f := range sn.flows() {
		if f.to == network.GuestIP {
			t.Errorf("a packet came to the other guest: %v", f)
		}
	}
}

// TestEachLayerAloneHolds takes one layer away and looks that the other keeps what is private out of reach.
func TestEachLayerAloneHolds(t *testing.T) {
	never := slices.Concat(private, v6)
	t.Run("the host's rules alone", func(t *testing.T) {
		_, sn := newWorld(t)
		seen := hostListener(t)
		d := newDriver(t, Config{})
		sandbox, s := acquire(t, d, network.Policy{Internet: true})
		other, so := acquire(t, d, network.Policy{Internet: true})
		g, b := newGuest(t, sandbox, s), newGuest(t, other, so)
		for _, slot := range []network.Slot{s, so} {
			err := inside(slot.NetNS, func(*os.File) error {
				open := slotTable(network.Policy{}, slot.Index, nil, 0)
				open.Chains = open.Chains[len(open.Chains)-1:] // translation of the source, and nothing else
				return errors.Join(nft.Remove(tapTable()), nft.Put(open, nil))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		reaches(t, g, public[0])
		go serve(b.listen("tcp4", ":80"))
		bsn := b.sniff()
		for _, ip := range slices.Concat(never, []string{insideAddr(so.Index).String(), hostAddr(so.Index).String()}) {
			tries(t, g.space, "", ip, worldPort)
		}
		for _, ip := range []string{hostV4, hostV6, hostAddr(s.Index).String()} {
			tries(t, g.space, "", ip, hostPort)
		}
		spoofed := []string{"8.8.4.4", "10.77.0.9", "198.18.0.98"}
		g.do(func(h *netlink.Handle) error { return give(h, "eth0", singles(spoofed)...) })
		for _, from := range spoofed {
			tries(t, g.space, from, public[1], worldPort)
		}
		arrivals(t, sn, append(never, public[1]), hostV4)
		if n := seen.Load(); n > 0 {
			t.Errorf("the host was reached %d times", n)
		}
		for _, f := range bsn.flows() {
			if f.to == network.GuestIP {
				t.Errorf("a packet came to the other guest: %v", f)
			}
		}
	})
	t.Run("the namespace's rules alone", func(t *testing.T) {
		_, sn := newWorld(t)
		seen := hostListener(t)
		d := newDriver(t, Config{})
		sandbox, s := acquire(t, d, network.Policy{Internet: true})
		g := newGuest(t, sandbox, s)
		// With the table goes what remembers which uplinks did not forward before.
		routed, err := nft.Members(hostTable(), setRouted)
		if err != nil || len(routed) == 0 {
			t.Fatalf("uplinks that forward because of us: %v, %v", routed, err)
		}
		if err := nft.Remove(hostTable()); err != nil {
			t.Fatal(err)
		}
		for _, ip := range never {
			tries(t, g.space, "", ip, worldPort)
		}
		for _, ip := range hostTargets(s) {
			tries(t, g.space, "", ip, hostPort)
		}
		arrivals(t, sn, never, insideAddr(s.Index).String())
		if n := seen.Load(); n > 0 {
			t.Errorf("the host was reached %d times", n)
		}
		for _, uplink := range routed {
			if err := setSysctl(forwardingOf(uplink[0]), "0"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestTheVMMReachesNothing is a process in the namespace, as Firecracker is, that a guest took over.
func TestTheVMMReachesNothing(t *testing.T) {
	_, sn := newWorld(t)
	seen := hostListener(t)
	d := newDriver(t, Config{})
	_, s := acquire(t, d, network.Policy{Internet: true})
	ns, err := os.Open(s.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	vmm := &space{t: t, ns: ns}
	for _, ip := range slices.Concat(public, private, v6) {
		tries(t, vmm, "", ip, worldPort)
	}
	for _, ip := range []string{hostV4, hostV6, hostAddr(s.Index).String()} {
		tries(t, vmm, "", ip, hostPort)
	}
	arrivals(t, sn, slices.Concat(public, private, v6))
	if n := seen.Load(); n > 0 {
		t.Errorf("the host was reached %d times", n)
	}
}

// TestConnectionsAreBounded opens more connections than one guest may have.
func TestConnectionsAreBounded(t *testing.T) {
	newWorld(t)
	const limit = 5
	d := newDriver(t, Config{MaxConnections: limit})
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	g := newGuest(t, sandbox, s)
	for i := range limit + 3 {
		conn, err := g.dial("tcp", "", net.JoinHostPort(public[0], worldPort), 5*time.Second)
		if conn != nil {
			defer conn.Close()
		}
		if (err == nil) != (i < limit) {
			t.Errorf("connection %d: %v", i+1, err)
		}
	}
}

// TestStaleOpenSlotIsClosed leaves a slot in the host's set as a killed process would, and gives the slot to a sandbox that
// may reach nothing.
func TestStaleOpenSlotIsClosed(t *testing.T) {
	d := newDriver(t, Config{})
	acquire(t, d, network.Policy{}) // keeps the table
	if err := nft.Include(hostTable(), setOpen, openElement(1)); err != nil {
		t.Fatal(err)
	}
	_, s := acquire(t, d, network.Policy{})
	open, err := nft.Members(hostTable(), setOpen)
	if err != nil {
		t.Fatal(err)
	}
	if s.Index != 1 || len(open) > 0 {
		t.Errorf("slot %d; open: %v", s.Index, open)
	}
}

// TestTextIsWhatTheKernelHas loads each golden file with nft(8) and puts the same table with our own code, and has nft(8)
// print both: the text that people review is what the kernel runs.
func TestTextIsWhatTheKernelHas(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("11.0.0.1")}
	for name, table := range map[string]nft.Table{
		"host": hostTable(), "tap": tapTable(),
		"slot-closed":   slotTable(network.Policy{}, 7, host, 4096),
		"slot-internet": slotTable(network.Policy{Internet: true}, 7, host, 4096),
	} {
		t.Run(name, func(t *testing.T) {
			list := func(put func() error) (out []byte) {
				newSpace(t).do(func(*netlink.Handle) error {
					tap, err := openTAP(network.TAPName) // an ingress chain needs its device
					if err != nil {
						return err
					}
					defer tap.Close()
					if err := put(); err != nil {
						return err
					}
					out, err = exec.Command("nft", "-s", "-n", "list", "ruleset").CombinedOutput()
					if err != nil {
						err = fmt.Errorf("%w: %s", err, out)
					}
					return err
				})
				return out
			}
			text := list(func() error {
				out, err := exec.Command("nft", "-f", filepath.Join("testdata", name+".nft")).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			ours := list(func() error { return nft.Put(table, nil) })
			mark := "\n\tchain digest-" + table.Digest() + " {\n\t}\n"
			if got := bytes.Replace(ours, []byte(mark), nil, 1); !bytes.Equal(got, text) {
				t.Errorf("nft(8) made\n%s\nand we made\n%s", text, got)
			}
		})
	}
}

// TestSetsTakeTheSameTwice adds and removes what is there and what is not.
func TestSetsTakeTheSameTwice(t *testing.T) {
	newSpace(t).do(func(*netlink.Handle) error {
		table := hostTable()
		e := nft.Element{"wrenn-v5", "198.18.0.11"}
		if err := nft.Exclude(table, setOpen, e); err != nil {
			t.Errorf("no table: %v", err)
		}
		if got, err := nft.Members(table, setOpen); err != nil || len(got) > 0 {
			t.Errorf("no table: %v, %v", got, err)
		}
		if err := nft.Put(table, nft.Elements{setRouted: {{"eth0"}, {"eth1.100"}}}); err != nil {
			return err
		}
		for i, change := range []func(nft.Table, string, ...nft.Element) error{nft.Include, nft.Include, nft.Exclude, nft.Exclude, nft.Include} {
			if err := change(table, setOpen, e); err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		}
		got, err := nft.Members(table, setOpen)
		if err != nil || len(got) != 1 || !slices.Equal(got[0], e) {
			t.Errorf("open: %v, %v", got, err)
		}
		if got, err := nft.Members(table, setRouted); err != nil || len(got) != 2 {
			t.Errorf("routed: %v, %v", got, err)
		}
		if err := nft.Include(table, setOpen, nft.Element{"one field"}); err == nil {
			t.Error("an element with a field missing was taken")
		}
		for range 2 {
			if err := nft.Remove(table); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
}

// TestManySlots has more than one byte's worth of slots at once.
func TestManySlots(t *testing.T) {
	d := newDriver(t, Config{Slots: 140})
	for slot := range 129 {
		if err := d.slots.claim(slot, "cl-"+strconv.Itoa(slot)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = d.slots.free(slot) }()
	}
	sandbox, s := acquire(t, d, network.Policy{Internet: true})
	if s.Index != 129 || s.HostAddr.String() != "198.18.1.3" {
		t.Errorf("slot %+v", s)
	}
	go serve(newGuest(t, sandbox, s).listen("tcp4", ":7"))
	conn, err := d.Dial(t.Context(), sandbox, 7)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	release(t, d, sandbox)
}
