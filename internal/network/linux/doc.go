// Package linux gives sandboxes their network with namespaces, veth pairs, TAP devices and nftables, all by netlink.
//
// # The parts of slot i
//
//	guest eth0 ── tap0 ┐ namespace wrenn-i ┌ eth0 ── veth ── wrenn-v<i> ┐ host ┌ uplink ── internet
//	169.254.0.21   .22 └───────────────────┘ 198.18.0.0 + 2i + 1   + 2i └──────┘
//
// Slot i owns the two addresses of the /31 network 198.18.0.0 + 2i: the even one is the host's end, the odd one the
// namespace's. 198.18.0.0/15 is set aside for benchmarks and no part of the internet. Both ends know each other's hardware
// address from the slot number, and the namespace knows the guest's, so none of them asks by ARP: nothing a guest sends can
// fill the host's neighbour table, which all namespaces share.
//
// # What a packet passes
//
// Two layers, either of which alone keeps a guest from what is private. In the namespace, the table "netdev wrenn" sees each
// frame from the TAP before the network stack does, and drops what does not come from the guest's own hardware and IPv4
// address; "inet wrenn" lets the guest's packets go where the policy says, lets answers back in, and lets no other process of
// the namespace send anything: the VMM, should a guest take it over, reaches nothing but that guest. On the host, one table
// "inet wrenn" for all slots drops what does not carry its slot's own source address, what is for the host itself, for a
// private address, or for another sandbox. A slot whose policy allows nothing is not in the host's set of open slots at all.
//
// A rule that accepts ends our table only. A host whose other tables drop forwarded packets by default, as Docker's do,
// must let the interfaces wrenn-v* pass in those (Docker: its chain DOCKER-USER).
//
// # Forwarding
//
// The host must forward packets between the veth and its uplink. When net.ipv4.ip_forward is off, the driver turns on
// net.ipv4.conf.<name>.forwarding of the interfaces with a route to the outside, and of no others; the host's table
// remembers which, and drops what would newly be routed between them and anything but a sandbox; when the last slot goes they
// are turned off again. The kernel turns off large-receive offload on such an interface and leaves it off.
//
// # Ownership
//
// A slot is taken by a link <state>/slots/<i> to the sandbox's id, before anything is made in the kernel. The number is
// final when /run/netns/wrenn-<i> exists, which only one process of the host can make, so two state folders never share a
// slot. A slot that is kept ready has a link to "ready" instead, until it is given to a sandbox. A namespace says whose it is
// before it has a name: the alias of its loopback device is the sandbox's id and the state folder. Release takes the opposite
// way, and the link goes last. What happens between a namespace's birth and the host's table is done under a lock on the folder
// /run/netns, as ip(8) does it.
package linux
