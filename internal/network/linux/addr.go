package linux

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// What the objects of a slot are called.
const (
	netnsDir    = "/run/netns"
	netnsPrefix = "wrenn-"
	linkPrefix  = "wrenn-v"
	insideLink  = "eth0" // the namespace's end of the veth pair
)

// MaxSlots is how many slots a host can have: every one takes two addresses and a user id.
const MaxSlots = 32768

// slotNet is where the slots' addresses come from.
var slotNet = netip.MustParsePrefix("198.18.0.0/15")

func netnsPath(slot int) string { return netnsDir + "/" + netnsName(slot) }
func netnsName(slot int) string { return netnsPrefix + strconv.Itoa(slot) }
func linkName(slot int) string  { return linkPrefix + strconv.Itoa(slot) }

// hostAddr is the host's address of the slot's pair, insideAddr the namespace's.
func hostAddr(slot int) netip.Addr   { return pairAddr(slot, 0) }
func insideAddr(slot int) netip.Addr { return pairAddr(slot, 1) }

func pairAddr(slot, end int) netip.Addr {
	a := slotNet.Addr().As4()
	n := 2*slot + end
	a[1] += byte(n >> 16)
	a[2] = byte(n >> 8)
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

// hostMAC and insideMAC are the hardware addresses of the pair: locally administered, "wr", then which end, and the slot.
func hostMAC(slot int) net.HardwareAddr   { return pairMAC(slot, 0) }
func insideMAC(slot int) net.HardwareAddr { return pairMAC(slot, 1) }

func pairMAC(slot, end int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'w', 'r', byte(end), byte(slot >> 8), byte(slot)}
}

// slotNumber reads the number out of an object's name, which has no other form.
func slotNumber(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n >= MaxSlots || strconv.Itoa(n) != digits {
		return 0, false
	}
	return n, true
}

// label is what a namespace says about its owner. It must fit into the alias of a device.
func label(id, stateDir string) string { return fmt.Sprintf("wrenn %s %s", id, stateDir) }

// maxLabel is the kernel's limit for an alias, without the byte that ends it.
const maxLabel = 255

// labelOwner reads the sandbox id out of a label of this state folder.
func labelOwner(text, stateDir string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(text, "wrenn ")
	if !ok {
		return "", false
	}
	id, dir, ok := strings.Cut(rest, " ")
	return id, ok && dir == stateDir && id != ""
}
