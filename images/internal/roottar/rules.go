package roottar

import (
	"archive/tar"
	"bytes"
	"path"
	"strings"
)

// emptied folders keep nothing: the system mounts over them or fills them itself.
var emptied = []string{
	"dev", "proc", "sys", "run", "tmp", "var/tmp", "var/cache/apt", "var/cache/man", "var/lib/apt/lists", "boot",
}

// dropped are files that belong to one machine, or that tell where and when the tree was made. They are patterns of
// path.Match.
var dropped = []string{
	"etc/hostname", "etc/hosts", "etc/resolv.conf", // this machine's; wrenn-init writes the guest's
	"etc/machine-id", "var/lib/dbus/machine-id", // an identity
	"var/lib/systemd/random-seed", "etc/ssh/ssh_host_*", "etc/chrony/chrony.keys", "var/lib/chrony/*", // secrets
	"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", // copies of earlier states
	"var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old", "var/cache/debconf/*-old",
	"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock",
	"var/cache/ldconfig/aux-cache",    // holds inode numbers
	"etc/apt/apt.conf.d/99mmdebstrap", // may name the building machine's proxy
	"root/.bash_history", "root/.wget-hsts",
}

// leftOut tells whether an entry of the archive stays behind.
func leftOut(name string, kind byte) bool {
	for _, dir := range emptied {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	for _, pattern := range dropped {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	// Logs go, their folders stay: programs expect them.
	return strings.HasPrefix(name, "var/log/") && kind != tar.TypeDir
}

// edits change what would differ from day to day in files that are needed.
var edits = map[string]func([]byte) []byte{"etc/shadow": passwordDates}

// passwordDates sets the day of the last change of every password to the first of time's days but one: 0 would ask for a
// new password at once.
func passwordDates(shadow []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(shadow) {
		fields := bytes.Split(line, []byte(":"))
		const lastChange = 2
		if len(fields) > lastChange && len(fields[lastChange]) > 0 {
			fields[lastChange] = []byte("1")
		}
		out.Write(bytes.Join(fields, []byte(":")))
	}
	return out.Bytes()
}
