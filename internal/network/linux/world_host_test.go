//go:build hosttest

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/networktest"
)

// silence is how long a test waits for what should not come. What should come is waited for as long as it takes.
const silence = 700 * time.Millisecond

// space is a network namespace of a test, with nobody's rules in it.
type space struct {
	t  *testing.T
	ns *os.File
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{t: t}
	err := onThread(func(*os.File) error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		s.ns, err = os.Open(threadNS)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ns.Close() })
	return s
}

func (s *space) path() string { return fmt.Sprintf("/proc/self/fd/%d", s.ns.Fd()) }

// do runs fn in the namespace with a netlink socket there.
func (s *space) do(fn func(h *netlink.Handle) error) {
	s.t.Helper()
	if err := inside(s.path(), func(*os.File) error { return withHandle(fn) }); err != nil {
		s.t.Fatal(err)
	}
}

func withHandle(fn func(h *netlink.Handle) error) error {
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

// dial connects from inside the namespace. From is the source address, if it matters.
func (s *space) dial(proto, from, to string, patience time.Duration) (conn net.Conn, err error) {
	s.t.Helper()
	dialer := net.Dialer{Timeout: patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		if proto == "udp" {
			dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		}
	}
	inner := inside(s.path(), func(*os.File) error {
		conn, err = dialer.Dial(proto, to)
		return nil
	})
	if inner != nil {
		s.t.Fatal(inner)
	}
	return conn, err
}

// send sends a datagram to the address and ignores what comes of it.
func (s *space) send(from, to string) {
	s.t.Helper()
	conn, err := s.dial("udp", from, to, time.Second)
	if err != nil {
		return // no route: it can't arrive
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("hello"))
}

// listen opens a listener in the namespace.
func (s *space) listen(proto, addr string) net.Listener {
	s.t.Helper()
	var l net.Listener
	s.do(func(*netlink.Handle) (err error) {
		l, err = net.Listen(proto, addr)
		return err
	})
	s.t.Cleanup(func() { l.Close() })
	return l
}

func serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go networktest.Echo(conn)
	}
}

// sniffer keeps source and destination of every IP packet that a namespace sees.
type sniffer struct {
	mu   sync.Mutex
	seen []flow
}

type flow struct{ from, to netip.Addr }

func (s *space) sniff() *sniffer {
	s.t.Helper()
	var f *os.File
	s.do(func(*netlink.Handle) error {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
		f = os.NewFile(uintptr(fd), "sniffer")
		return err
	})
	s.t.Cleanup(func() { f.Close() })
	sn := &sniffer{}
	go sn.run(f)
	return sn
}

func (sn *sniffer) run(f *os.File) {
	buf := make([]byte, 1<<16)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if fl, ok := parse(buf[:n]); ok {
			sn.mu.Lock()
			sn.seen = append(sn.seen, fl)
			sn.mu.Unlock()
		}
	}
}

func parse(p []byte) (flow, bool) {
	cut := func(from, n int) netip.Addr {
		a, _ := netip.AddrFromSlice(p[from : from+n])
		return a
	}
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return flow{cut(12, 4), cut(16, 4)}, true
	case len(p) >= 40 && p[0]>>4 == 6:
		return flow{cut(8, 16), cut(24, 16)}, true
	}
	return flow{}, false
}

// flows is what was seen so far.
func (sn *sniffer) flows() []flow {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return slices.Clone(sn.seen)
}

// The world around the host: one namespace that has every one of these addresses, so that what a guest does not reach was
// dropped on purpose and is not merely absent.
var (
	public  = []string{"8.8.8.8", "93.184.216.34"}
	private = []string{"10.77.0.1", "172.16.5.5", "192.168.77.1", "100.64.9.9", "100.100.100.200", "198.18.200.1", "169.254.7.7",
		"169.254.169.254", "168.63.129.16", "192.0.0.8", "192.0.2.7", "192.88.99.1", "198.51.100.7", "203.0.113.7", "240.1.2.3"}
	v6 = []string{"2606:4700::1111", "fd00:ec2::254", "fd12::1"}
)

const (
	worldPort = "80"
	hostPort  = "7780"
	hostV4    = "11.0.0.1"
	worldV4   = "11.0.0.2"
	hostV6    = "2001:db8:1::1"
	worldV6   = "2001:db8:1::2"
)

// newWorld makes the world and connects the host with it. The host does not forward before, and is as before afterwards.
func newWorld(t *testing.T) (*space, *sniffer) {
	t.Helper()
	keepSysctl(t, "ipv4/ip_forward", "0")
	w := newSpace(t)
	err := withHandle(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "world-host"
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "world-away", netlink.NsFd(w.ns.Fd())
		if err := h.LinkAdd(pair); err != nil {
			return err
		}
		t.Cleanup(func() { _ = netlink.LinkDel(pair) })
		return give(h, "world-host", hostV4+"/30", hostV6+"/64")
	})
	if err != nil {
		t.Fatal(err)
	}
	w.do(func(h *netlink.Handle) error {
		if err := give(h, "world-away", worldV4+"/30", worldV6+"/64"); err != nil {
			return err
		}
		return give(h, "lo", singles(public, private, v6)...)
	})
	err = withHandle(func(h *netlink.Handle) error { return routeToWorld(h, "world-host", public, private, v6) })
	if err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{"tcp4", "tcp6"} {
		go serve(w.listen(proto, ":"+worldPort))
	}
	return w, w.sniff()
}

// keepSysctl sets a variable for the length of the test.
func keepSysctl(t *testing.T, name, value string) {
	t.Helper()
	before, err := getSysctl(name)
	if err != nil {
		t.Fatal(err)
	}
	if before == value {
		return
	}
	if err := setSysctl(name, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = setSysctl(name, before) })
}

func singles(lists ...[]string) (cidrs []string) {
	for _, ip := range slices.Concat(lists...) {
		a := netip.MustParseAddr(ip)
		cidrs = append(cidrs, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return cidrs
}

// give turns a link on with addresses.
func give(h *netlink.Handle, name string, cidrs ...string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, cidr := range cidrs {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s: %w", cidr, err)
		}
	}
	return h.LinkSetUp(link)
}

func routeToWorld(h *netlink.Handle, name string, lists ...[]string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, cidr := range singles(lists...) {
		dst, err := netlink.ParseIPNet(cidr)
		if err != nil {
			return err
		}
		via := worldV4
		if strings.Contains(cidr, ":") {
			via = worldV6
		}
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(via)}); err != nil {
			return fmt.Errorf("route to %s: %w", cidr, err)
		}
	}
	return nil
}

// guest is a machine behind a slot's TAP: a namespace whose frames a pump carries to the TAP and back, through the same
// file that Firecracker would hold.
type guest struct {
	*space
	sandbox string
	slot    network.Slot
	tap     *os.File
}

func newGuest(t *testing.T, sandbox string, slot network.Slot) *guest {
	t.Helper()
	g := &guest{space: newSpace(t), sandbox: sandbox, slot: slot}
	if err := inside(slot.NetNS, func(*os.File) (err error) { g.tap, err = openTAP(network.TAPName); return err }); err != nil {
		t.Fatal(err)
	}
	var own *os.File
	g.do(func(h *netlink.Handle) (err error) {
		if own, err = openTAP("eth0"); err != nil {
			return err
		}
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := h.LinkSetHardwareAddr(link, guestMAC()); err != nil {
			return err
		}
		// A guest has an IPv6 address too, if it likes, and a route for it.
		if err := give(h, "eth0", network.GuestIP.String()+"/30", "fd77::2/64"); err != nil {
			return err
		}
		if err := give(h, "lo"); err != nil {
			return err
		}
		return errors.Join(h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: network.Gateway.AsSlice()}),
			h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}))
	})
	t.Cleanup(func() { g.tap.Close(); own.Close() })
	go pump(own, g.tap)
	go pump(g.tap, own)
	return g
}

// openTAP opens a TAP of the thread's namespace as Firecracker does.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func pump(from, to *os.File) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = to.Write(buf[:n]) // a frame may be lost
		}
	}
}

// inject sends a frame of the guest's that its own network stack would not.
func (g *guest) inject(frame []byte) {
	g.t.Helper()
	const vnetHeader = 10
	if _, err := g.tap.Write(append(make([]byte, vnetHeader), frame...)); err != nil {
		g.t.Fatal(err)
	}
}
