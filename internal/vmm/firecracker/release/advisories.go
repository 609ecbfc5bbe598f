package release

// Advisory is a published hole of Firecracker or its jailer.
type Advisory struct {
	// ID is the CVE number.
	ID string
	// Summary is what the hole is, in a line.
	Summary string
	// Fixed lists the first versions without it.
	Fixed []Version
	// Defence is what keeps it shut here although the version has it.
	Defence string

	affects func(Version) bool
}

// JailerSymlink is the hole that a chroot base which only root can write to keeps shut.
const JailerSymlink = "CVE-2026-1386"

// advisories are the known holes of supported versions, newest last.
var advisories = []Advisory{
	{
		ID:      JailerSymlink,
		Summary: "the jailer follows a symbolic link when it copies the binary, and overwrites what the link points to",
		Fixed:   []Version{{1, 13, 2}, {1, 14, 1}},
		Defence: "the chroot base is made so that only root can write to it, and a jail is always a new folder",
		affects: func(v Version) bool {
			return v.Compare(Version{1, 13, 2}) < 0 || v == Version{1, 14, 0}
		},
	},
	{
		ID:      "CVE-2026-5747",
		Summary: "a guest can write outside a virtio queue's memory when devices are on PCI",
		Fixed:   []Version{{1, 14, 4}, {1, 15, 1}},
		Defence: "PCI is never turned on",
		affects: func(v Version) bool {
			return v.Compare(Version{1, 13, 0}) >= 0 && v.Compare(Version{1, 14, 4}) < 0 || v == Version{1, 15, 0}
		},
	},
}

// Advisories returns the known holes that a version has, nil when there are none.
func Advisories(v Version) []Advisory {
	var list []Advisory
	for _, a := range advisories {
		if a.affects(v) {
			list = append(list, a)
		}
	}
	return list
}
