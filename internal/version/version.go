// Package version holds what the build stamped into the binary.
//
// It is a leaf package: it imports nothing of ours.
package version

// Version is the release or `git describe` of the tree the binary was built from. The Makefile sets it by -ldflags -X.
var Version = "dev"

// Commit is the commit the binary was built from, "unknown" when the build did not say.
var Commit = "unknown"

// String is what `--version` prints: the version and the commit.
func String() string { return Version + " (" + Commit + ")" }
