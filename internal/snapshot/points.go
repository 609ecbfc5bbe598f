package snapshot

// The steps that a test can fail or end the process at, in the order in which they come.
const (
	pointStaged   = "snapshot.staged"   // the staging folder is there
	pointCompact  = "snapshot.compact"  // a compaction has copied its files
	pointScanned  = "snapshot.scanned"  // the memory was read and has its holes
	pointMap      = "snapshot.map"      // the block map is written
	pointSynced   = "snapshot.synced"   // all files but the manifest are on disk
	pointManifest = "snapshot.manifest" // the manifest is written beside its place
	pointPlace    = "snapshot.place"    // the folder is whole; it has its old name
	pointPlaced   = "snapshot.placed"   // the build is in its place; nothing refers to it
	pointRef      = "snapshot.ref"      // a reference is written beside its place
	pointGC       = "snapshot.gc"       // what is collected has been moved aside
)

// Failpoints are the names of the steps that WRENN_FAILPOINT can name.
func Failpoints() []string {
	return []string{
		pointStaged, pointCompact, pointScanned, pointMap, pointSynced, pointManifest, pointPlace, pointPlaced, pointRef, pointGC,
	}
}
