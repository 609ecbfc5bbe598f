//go:build hosttest

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The world around the host: a namespace that has every one of these addresses, and answers on port 80 of each. What the
// guest can't reach is therefore dropped on purpose and not merely absent.
var (
	public  = []string{"8.8.8.8", "93.184.216.34"}
	private = []string{"10.77.0.1", "172.16.5.5", "192.168.77.1", "100.64.9.9", "198.18.200.1", "169.254.7.7", "192.0.0.8", "240.1.2.3"}
	v6      = []string{"2606:4700::1111", "fd00:ec2::254", "fd12::1"}
)

const outsideNS, outsideLink, insideLink = "outside-test", "outside0", "outside1"

// outside makes the world and returns a log of who connected from where.
func outside(t *testing.T) *visitors {
	t.Helper()
	v := &visitors{}
	inThread(t, func() error {
		home, err := netns.Get()
		if err != nil {
			return err
		}
		defer home.Close()
		ns, err := netns.NewNamed(outsideNS)
		if err != nil {
			return err
		}
		defer ns.Close()
		t.Cleanup(func() { _ = netns.DeleteNamed(outsideNS) })
		if err := furnish(v); err != nil {
			return err
		}
		if err := netns.Set(home); err != nil {
			return err
		}
		return connect(t, ns)
	})
	return v
}

// furnish gives the namespace that the thread is in its addresses and listeners.
func furnish(v *visitors) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, list := range [][]string{public, private, v6} {
		for _, ip := range list {
			if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: single(ip), Flags: 0x02 /* IFA_F_NODAD */}); err != nil {
				return fmt.Errorf("%s: %w", ip, err)
			}
		}
	}
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, ":80")
		if err != nil {
			return err
		}
		go v.serve(l)
	}
	return nil
}

// connect links the host with the world and routes the addresses there.
func connect(t *testing.T, ns netns.NsHandle) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: insideLink}, PeerName: outsideLink, PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	host, err := netlink.LinkByName(insideLink)
	if err != nil {
		return err
	}
	if err := address(host, "11.0.0.1/30", "2001:db8:1::1/64"); err != nil {
		return err
	}
	for _, list := range [][]string{public, private, v6} {
		for _, ip := range list {
			via := net.ParseIP("11.0.0.2")
			if strings.Contains(ip, ":") {
				via = net.ParseIP("2001:db8:1::2")
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: host.Attrs().Index, Dst: single(ip), Gw: via, Flags: int(netlink.FLAG_ONLINK)}); err != nil {
				return fmt.Errorf("route to %s: %w", ip, err)
			}
		}
	}
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		return err
	}
	peer, err := netlink.LinkByName(outsideLink)
	if err == nil {
		err = address(peer, "11.0.0.2/30", "2001:db8:1::2/64")
	}
	if back := netns.Set(home); back != nil {
		return back
	}
	return err
}

func address(link netlink.Link, cidrs ...string) error {
	for _, cidr := range cidrs {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		addr.Flags = 0x02 // IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

func single(ip string) *net.IPNet {
	a := netip.MustParseAddr(ip)
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// inThread runs fn on a thread of its own, which ends with it: fn may leave it in any namespace.
func inThread(t *testing.T, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// visitors are the connections that the world saw.
type visitors struct {
	mu   sync.Mutex
	list []string // "from -> to"
}

func (v *visitors) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		v.mu.Lock()
		v.list = append(v.list, c.RemoteAddr().(*net.TCPAddr).IP.String()+" -> "+c.LocalAddr().(*net.TCPAddr).IP.String())
		v.mu.Unlock()
		_, _ = io.WriteString(c, "hello\n")
		c.Close()
	}
}

// try is a program for the guest: it connects to each address and port given and prints ADDRESS=ok or ADDRESS=why not.
const try = `
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(',')
    try:
        with socket.create_connection((host, int(port)), timeout=3) as s:
            print(host + '=' + ('ok' if s.recv(5) == b'hello' else 'silent'), flush=True)
    except OSError as e:
        print(host + '=' + type(e).__name__, flush=True)
`

func targets(port string, lists ...[]string) (list []string) {
	for _, l := range lists {
		for _, ip := range l {
			list = append(list, ip+","+port)
		}
	}
	return list
}

// TestGuestReachesTheInternetAndNothingElse sends packets from a real guest to each class of address.
func TestGuestReachesTheInternetAndNothingElse(t *testing.T) {
	nothingLeft(t)
	v := outside(t)
	l, err := net.Listen("tcp", ":7780")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hostSaw := &visitors{}
	go hostSaw.serve(l)

	host := append(hostAddresses(t), "169.254.0.22")
	args := append([]string{"run", "--user", "root", "--", "python3", "-c", try}, targets("80", public, private, v6)...)
	r := wrenn(t, append(args, targets("7780", host)...)...).want(t, 0)
	got := r.fields()
	for _, ip := range public {
		if got[ip] != "ok" {
			t.Errorf("public %s: %q, want ok", ip, got[ip])
		}
	}
	for _, list := range [][]string{private, v6, host} {
		for _, ip := range list {
			if got[ip] == "ok" || got[ip] == "silent" || got[ip] == "" {
				t.Errorf("%s: %q, want it out of reach", ip, got[ip])
			}
		}
	}
	if len(hostSaw.list) > 0 {
		t.Errorf("the host was reached: %v", hostSaw.list)
	}
	for _, visit := range v.list {
		if !strings.HasPrefix(visit, "11.0.0.1 -> ") {
			t.Errorf("a packet left with a source of its own: %s", visit)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", r.out, r.errOut)
	}
}

func hostAddresses(t *testing.T) (list []string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			list = append(list, ip.String())
		}
	}
	return list
}

// TestNoInternet closes even what is public.
func TestNoInternet(t *testing.T) {
	nothingLeft(t)
	v := outside(t)
	args := append([]string{"run", "--no-internet", "--", "python3", "-c", try}, targets("80", public)...)
	r := wrenn(t, args...).want(t, 0)
	if strings.Contains(r.out, "=ok") || len(v.list) > 0 {
		t.Errorf("the guest got out: %q, %v", r.out, v.list)
	}
}

// TestGuestsDoNotReachEachOther runs two guests at once: one listens, the other tries every address it could have.
func TestGuestsDoNotReachEachOther(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "-i", "--", "sh", "-c", "python3 -m http.server 8000 >/dev/null 2>&1 & echo up; cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	tried := false
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if tried {
			return len(p), nil
		}
		tried = true
		defer in.Close()
		var addrs []string
		for i := range 8 {
			addrs = append(addrs, fmt.Sprintf("198.18.0.%d", i))
		}
		// A guest that adds a route of its own and speaks for another address gains nothing.
		script := "ip route add 198.18.0.0/15 dev eth0; ip addr add 198.18.0.99/32 dev eth0; exec python3 -c \"$0\" \"$@\""
		args := append([]string{"run", "--user", "root", "--", "sh", "-c", script, try}, targets("8000", addrs)...)
		if r := wrenn(t, args...); r.code != 0 || strings.Contains(r.out, "=ok") || strings.Contains(r.out, "=silent") || len(r.fields()) != 8 {
			t.Errorf("exit code %d\n%s\n%s", r.code, r.out, r.errOut)
		}
		return len(p), nil
	})
	finish(t, cmd).want(t, 0)
	if !tried {
		t.Error("the first guest said nothing")
	}
}

// TestSpoofedSourcesAreDropped lets a guest speak with sources that are not its own.
func TestSpoofedSourcesAreDropped(t *testing.T) {
	nothingLeft(t)
	v := outside(t)
	const script = `
for spoof in 8.8.4.4 10.77.0.9 198.18.0.40; do
  ip addr add $spoof/32 dev eth0
  python3 - $spoof <<'EOF'
import socket, sys
s = socket.socket(); s.bind((sys.argv[1], 0)); s.settimeout(3)
try:
    s.connect(('93.184.216.34', 80)); print(sys.argv[1] + '=ok')
except OSError as e:
    print(sys.argv[1] + '=' + type(e).__name__)
EOF
done`
	r := wrenn(t, "run", "--user", "root", "--", "bash", "-c", script).want(t, 0)
	if got := r.fields(); len(got) != 3 || strings.Contains(r.out, "=ok") || len(v.list) > 0 {
		t.Errorf("%q, %v", r.out, v.list)
	}
}

// TestForeignRulesStay makes a table and a link of somebody else and looks that they are as before.
func TestForeignRulesStay(t *testing.T) {
	nothingLeft(t)
	const rules = "table inet somebody { chain c { type filter hook input priority 0; counter accept; }; }"
	if out, err := exec.Command("nft", rules).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() { _ = exec.Command("nft", "delete table inet somebody").Run() }()
	wrenn(t, "run", "--", "true").want(t, 0)
	if out, err := exec.Command("nft", "list", "table", "inet", "somebody").CombinedOutput(); err != nil || !strings.Contains(string(out), "counter") {
		t.Errorf("%v: %s", err, out)
	}
}
