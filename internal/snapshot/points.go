package snapshot

import "wrenn.dev/wrenn/internal/failpoint"

// The steps that a test can fail or end the process at, in the order in which they come.
var (
	pointStaged   = failpoint.New("snapshot.staged")   // the staging folder is there
	pointCompact  = failpoint.New("snapshot.compact")  // a compaction has copied its files
	pointScanned  = failpoint.New("snapshot.scanned")  // the memory was read and has its holes
	pointMap      = failpoint.New("snapshot.map")      // the block map is written
	pointSynced   = failpoint.New("snapshot.synced")   // all files but the manifest are on disk
	pointManifest = failpoint.New("snapshot.manifest") // the manifest is written beside its place
	pointPlace    = failpoint.New("snapshot.place")    // the folder is whole; it has its old name
	pointPlaced   = failpoint.New("snapshot.placed")   // the build is in its place; nothing refers to it
	pointRef      = failpoint.New("snapshot.ref")      // a reference is written beside its place
	pointRefGone  = failpoint.New("snapshot.ref-gone") // a reference is removed; its build is there
	pointGC       = failpoint.New("snapshot.gc")       // what is collected has been moved aside
)

// Failpoints are the names of the steps of a commit, a compaction and a collection.
func Failpoints() []string {
	return failpoint.Names(
		pointStaged, pointCompact, pointScanned, pointMap, pointSynced, pointManifest, pointPlace, pointPlaced, pointRef, pointGC,
	)
}
