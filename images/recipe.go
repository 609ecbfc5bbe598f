package main

// recipe is what an image is made from. To change the image, change this file: parts whose inputs changed are made anew.
type recipe struct {
	name string
	// packages come from Debian with what they depend on, but not what they recommend.
	packages []string
	// setUp are shell commands that run at the end, on the machine that builds, with the tree's folder as $1.
	setUp []string
	// leaveOut are paths that are not unpacked, and keep the exceptions from them.
	leaveOut, keep []string
	// spare is the room that is left free in the file system: a share of what is in it, in percent. leastMiB bounds it below.
	// A sandbox may ask for more room than that: its file system then grows when it boots.
	spare    int
	leastMiB int64
	// vcpus and memoryMiB are a sandbox's when it asks for nothing else.
	vcpus, memoryMiB int
}

// base is the template "base": a small Debian in which a person or an agent finds the usual tools.
var base = recipe{
	name: "base",
	packages: []string{
		// What a shell expects.
		"apt", "bash", "coreutils", "kmod", "less", "mount", "nano", "netbase", "procps", "sudo", "tzdata", "util-linux", "xz-utils",
		// The network.
		"ca-certificates", "curl", "iproute2", "iputils-ping", "openssh-client", "socat",
		// Work.
		"git", "python3",
		// The clock, and what reaps processes. A copy of tini is injected beside envd, for images that lack it.
		"chrony", "tini",
	},
	setUp: []string{
		`chroot "$1" useradd --uid 1000 --create-home --shell /bin/bash user`,
		`echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/user" && chmod 440 "$1/etc/sudoers.d/user"`,
		// The mirror of the machine that builds is nobody else's.
		`rm -f "$1"/etc/apt/sources.list.d/* && printf 'deb http://deb.debian.org/%s main\n' \
			'debian trixie' 'debian trixie-updates' 'debian-security trixie-security' >"$1/etc/apt/sources.list"`,
	},
	leaveOut: []string{"/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*"},
	keep:     []string{"/usr/share/doc/*/copyright"},
	spare:    30, leastMiB: 1024,
	vcpus: 1, memoryMiB: 512,
}

// kernelPackage is the guest's kernel, the same signed and security-updated one that Debian's cloud machines run.
const kernelPackage = "linux-image-cloud-amd64"

// firstModules are loaded from the initramfs, with what they need: the drives, the network and the host's clock. All others
// are on the drive of modules.
var firstModules = []string{"virtio_mmio", "virtio_blk", "virtio_net", "ptp_kvm"}

// optionalModules are those of them that a machine may refuse: not every host has a clock to give.
var optionalModules = []string{"ptp_kvm"}
