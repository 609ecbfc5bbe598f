package linux

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/linux/nft"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestRulesAreGolden shows in review what every change does to the rules.
func TestRulesAreGolden(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("11.0.0.1"), netip.MustParseAddr("2001:db8::1")}
	for name, table := range map[string]nft.Table{
		"host":          hostTable(),
		"tap":           tapTable(),
		"slot-closed":   slotTable(network.Policy{}, 7, host, 4096),
		"slot-internet": slotTable(network.Policy{Internet: true}, 7, host, 4096),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), table.String()); diff != "" {
				t.Errorf("rules changed (-golden +now); -update writes them anew:\n%s", diff)
			}
		})
	}
}

// TestDeniedClasses asks for an address of each class that no guest may reach, and for some that every guest may.
func TestDeniedClasses(t *testing.T) {
	isDenied := func(s string) bool {
		a := netip.MustParseAddr(s)
		return slices.ContainsFunc(denied, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for what, addrs := range map[string][]string{
		"this network":  {"0.0.0.0", "0.1.2.3"},
		"private":       {"10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"},
		"carrier NAT":   {"100.64.0.0", "100.127.255.255"},
		"loopback":      {"127.0.0.1", "127.255.255.255"},
		"link-local":    {"169.254.0.0", "169.254.255.255"},
		"metadata":      {"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"},
		"sandboxes":     {"198.18.0.0", "198.19.255.255"},
		"protocols":     {"192.0.0.8"},
		"documentation": {"192.0.2.1", "198.51.100.1", "203.0.113.1"},
		"relays to v6":  {"192.88.99.1"},
		"multicast":     {"224.0.0.1", "239.255.255.255"},
		"reserved":      {"240.0.0.1", "255.255.255.254"},
		"broadcast":     {"255.255.255.255"},
	} {
		for _, a := range addrs {
			if !isDenied(a) {
				t.Errorf("%s: %s is allowed", what, a)
			}
		}
	}
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0",
		"172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"} {
		if isDenied(a) {
			t.Errorf("%s is denied", a)
		}
	}
}

func TestDeniedIsInOrderAndDisjoint(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("250.0.0.1"), netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("1.2.3.4"),
		netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("::1")}
	list := withHost(denied, host)
	if len(list) != len(denied)+1 || !slices.Contains(list, netip.MustParsePrefix("1.2.3.4/32")) {
		t.Errorf("with the host's addresses: %v", list)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1].Overlaps(list[i]) || !list[i-1].Addr().Less(list[i].Addr()) {
			t.Errorf("%v then %v", list[i-1], list[i])
		}
	}
}

func TestGuestAddressIsDenied(t *testing.T) {
	// The link between guest and namespace must not be routed anywhere.
	for _, a := range []netip.Addr{network.GuestIP, network.Gateway, hostAddr(0), insideAddr(MaxSlots - 1)} {
		if !slices.ContainsFunc(denied, func(p netip.Prefix) bool { return p.Contains(a) }) {
			t.Errorf("%s is not denied", a)
		}
	}
	if len(guestMAC()) != 6 {
		t.Errorf("network.GuestMAC %q is no hardware address", network.GuestMAC)
	}
}
