package guestinit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/init/kmsg"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

// defaultName is the machine's name when nobody gives it one.
const defaultName = "sandbox"

// defaultServers resolve names when the metadata names no others.
const defaultServers = "1.1.1.1,8.8.8.8"

// maxFile bounds what is read of the image's own configuration.
const maxFile = 1 << 20

// isHostname: letters and digits, with dots and dashes between them, no more than the kernel takes.
func isHostname(name string) bool {
	const ends = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return name != "" && len(name) <= 64 && strings.Trim(name, ends+".-") == "" &&
		strings.ContainsRune(ends, rune(name[0])) && strings.ContainsRune(ends, rune(name[len(name)-1]))
}

// identify gives the machine its name and its name servers.
func identify(doc mmds.Document) error {
	name := doc.Hostname
	if name == "" {
		name = defaultName
	}
	if !isHostname(name) {
		return fmt.Errorf("metadata: %.80q is no host name: %w", name, errs.ErrInvalid)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name %s: %w", name, err)
	}
	servers := doc.DNS
	if servers == "" {
		servers = defaultServers
	}
	conf, err := resolvConf(servers)
	if err != nil {
		return err
	}
	warn(update("/etc/hosts", func(old []byte) []byte { return hosts(old, name) }))
	warn(update("/etc/resolv.conf", func(old []byte) []byte {
		if hasServer(old) {
			return old
		}
		return conf
	}))
	return nil
}

// warn is for what a guest can do without: an image may be read-only.
func warn(err error) {
	if err != nil {
		kmsg.Warn("%v", err)
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

// update rewrites a small file if change makes it another. A link is read through, and replaced by a file when what it leads to
// has to change.
func update(path string, change func(old []byte) []byte) error {
	old, err := readSmall(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is left as it is: %w", path, err)
	}
	text := change(old)
	if bytes.Equal(text, old) {
		return nil
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("%s is left as it is: %w", path, err)
	}
	return nil
}

// readSmall reads a regular file; anything else could block or never end.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no small file: %w", path, errs.ErrInvalid)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// replaceFile puts a file in the place of whatever is at path, at once.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".wrenn-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
