// Package identity gives a machine its name and its name servers, as the metadata says: at its boot, and again when a frozen one
// starts as another.
//
// It is used by wrenn-init and envd inside the guest.
package identity

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/mmds"
	"wrenn.dev/wrenn/internal/guest/smallfile"
)

// defaultName is the machine's name when nobody gives it one.
const defaultName = "sandbox"

// defaultServers resolve names when the metadata names no others.
const defaultServers = "1.1.1.1,8.8.8.8"

// isHostname: letters and digits, with dots and dashes between them, no more than the kernel takes.
func isHostname(name string) bool {
	const ends = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && len(name) <= 64 && strings.Trim(name, ends+".-") == "" &&
		strings.ContainsRune(ends, rune(name[0])) && strings.ContainsRune(ends, rune(name[len(name)-1]))
}

// Apply gives the machine its name and its name servers. ErrInvalid, before anything is changed, for a name or a server that is
// none. What a guest can do without, because an image may be read-only, is only told to warn.
func Apply(doc mmds.Document, warn func(error)) error {
	servers := doc.DNS
	if servers == "" {
		servers = defaultServers
	}
	conf, err := resolvConf(servers)
	if err != nil {
		return err
	}
	if err := Rename(doc.Hostname, warn); err != nil {
		return err
	}
	tell(warn, smallfile.Update("/etc/resolv.conf", func(old []byte) []byte {
		if hasServer(old) {
			return old
		}
		return conf
	}))
	return nil
}

// Rename gives the machine a name, or the default one for an empty name, and makes it resolve. ErrInvalid, before anything is
// changed, for what is no name.
func Rename(name string, warn func(error)) error {
	if name == "" {
		name = defaultName
	}
	if !isHostname(name) {
		return fmt.Errorf("metadata: %.80q is no host name: %w", name, errs.ErrInvalid)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name %s: %w", name, err)
	}
	tell(warn, smallfile.Update("/etc/hosts", func(old []byte) []byte { return hosts(old, name) }))
	return nil
}

func tell(warn func(error), err error) {
	if err != nil {
		warn(err)
	}
}

// resolvConf is the content of /etc/resolv.conf for name servers separated by commas.
func resolvConf(servers string) ([]byte, error) {
	var b bytes.Buffer
	for s := range strings.SplitSeq(servers, ",") {
		addr, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("metadata: name servers %.200q: %w: %w", servers, err, errs.ErrInvalid)
		}
		fmt.Fprintf(&b, "nameserver %s\n", addr)
	}
	return b.Bytes(), nil
}

// hasServer tells whether a resolv.conf names any server.
func hasServer(conf []byte) bool {
	for line := range bytes.Lines(conf) {
		if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "nameserver" {
			return true
		}
	}
	return false
}

// ownAddress is what the machine's own name resolves to, as Debian does it.
const ownAddress = "127.0.1.1"

// hosts is an /etc/hosts with the machine's name in it; an image's own lines stay.
func hosts(old []byte, name string) []byte {
	var b bytes.Buffer
	hasLocal := false
	for line := range bytes.Lines(old) {
		f := bytes.Fields(line)
		if len(f) > 0 && string(f[0]) == ownAddress {
			continue
		}
		hasLocal = hasLocal || len(f) > 1 && string(f[0]) == "127.0.0.1"
		b.Write(bytes.TrimRight(line, "\n"))
		b.WriteByte('\n')
	}
	if !hasLocal {
		b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	}
	fmt.Fprintf(&b, "%s %s\n", ownAddress, name)
	return b.Bytes()
}
