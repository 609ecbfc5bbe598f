package linux

import (
	"net/netip"
	"testing"
)

func TestAddressesOfASlot(t *testing.T) {
	for _, c := range []struct {
		slot             int
		host, inside     string
		hostEnd, nearEnd string
	}{
		{0, "198.18.0.0", "198.18.0.1", "02:77:72:00:00:00", "02:77:72:01:00:00"},
		{1, "198.18.0.2", "198.18.0.3", "02:77:72:00:00:01", "02:77:72:01:00:01"},
		{128, "198.18.1.0", "198.18.1.1", "02:77:72:00:00:80", "02:77:72:01:00:80"},
		{MaxSlots - 1, "198.18.255.254", "198.18.255.255", "02:77:72:00:7f:ff", "02:77:72:01:7f:ff"},
	} {
		if got := hostAddr(c.slot).String(); got != c.host {
			t.Errorf("slot %d: host %s, want %s", c.slot, got, c.host)
		}
		if got := insideAddr(c.slot).String(); got != c.inside {
			t.Errorf("slot %d: inside %s, want %s", c.slot, got, c.inside)
		}
		if got := hostMAC(c.slot).String(); got != c.hostEnd {
			t.Errorf("slot %d: host %s, want %s", c.slot, got, c.hostEnd)
		}
		if got := insideMAC(c.slot).String(); got != c.nearEnd {
			t.Errorf("slot %d: inside %s, want %s", c.slot, got, c.nearEnd)
		}
	}
}

func TestEverySlotHasAddressesOfItsOwn(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for slot := range MaxSlots {
		for _, a := range []netip.Addr{hostAddr(slot), insideAddr(slot)} {
			if seen[a] || !slotNet.Contains(a) {
				t.Fatalf("slot %d: %s is taken or outside of %s", slot, a, slotNet)
			}
			seen[a] = true
		}
		if len(linkName(slot)) > 15 {
			t.Fatalf("%s is too long for a link", linkName(slot))
		}
	}
}

func TestSlotNumber(t *testing.T) {
	for _, c := range []struct {
		name, prefix string
		slot         int
		ok           bool
	}{
		{"wrenn-0", netnsPrefix, 0, true},
		{"wrenn-32767", netnsPrefix, 32767, true},
		{"wrenn-v12", linkPrefix, 12, true},
		{"5", "", 5, true},
		{"wrenn-32768", netnsPrefix, 0, false},
		{"wrenn--1", netnsPrefix, 0, false},
		{"wrenn-+1", netnsPrefix, 0, false},
		{"wrenn-01", netnsPrefix, 0, false},
		{"wrenn-v1", netnsPrefix, 0, false},
		{"wrenn-", netnsPrefix, 0, false},
		{"wrenn", netnsPrefix, 0, false},
		{"other-1", netnsPrefix, 0, false},
	} {
		slot, ok := slotNumber(c.name, c.prefix)
		if ok != c.ok || ok && slot != c.slot {
			t.Errorf("slotNumber(%q, %q) = %d, %v; want %d, %v", c.name, c.prefix, slot, ok, c.slot, c.ok)
		}
	}
}

func TestLabel(t *testing.T) {
	const dir = "/var/lib/wrenn"
	if owner, ok := labelOwner(label("cl-a", dir), dir); !ok || owner != "cl-a" {
		t.Errorf("labelOwner = %q, %v", owner, ok)
	}
	for _, foreign := range []string{"", "wrenn", "wrenn cl-a", "wrenn cl-a /elsewhere", "wrenn  " + dir, "other cl-a " + dir} {
		if owner, ok := labelOwner(foreign, dir); ok {
			t.Errorf("labelOwner(%q) = %q, want none", foreign, owner)
		}
	}
}
