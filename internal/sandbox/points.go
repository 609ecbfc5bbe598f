package sandbox

import "wrenn.dev/wrenn/internal/failpoint"

// The steps at which a test can stop the process.
var (
	pointFolder      = failpoint.New("sandbox.folder")       // a new sandbox has its folder, and no record
	pointGroundwork  = failpoint.New("sandbox.groundwork")   // it has its record and its reference; nothing is in the kernel
	pointBoot        = failpoint.New("sandbox.boot")         // network, disk and pager are there
	pointAwake       = failpoint.New("sandbox.awake")        // the machine runs; envd has not answered
	pointQuiesced    = failpoint.New("sandbox.quiesced")     // envd refuses calls
	pointStill       = failpoint.New("sandbox.still")        // the machine stands still
	pointSnapshot    = failpoint.New("sandbox.snapshot")     // the VMM's files are written
	pointFrozen      = failpoint.New("sandbox.frozen")       // the disk's file is written
	pointCommitted   = failpoint.New("sandbox.committed")    // the build is whole and referred to; the record does not say so
	pointStopping    = failpoint.New("sandbox.stopping")     // the record says that it goes
	pointMachineGone = failpoint.New("sandbox.machine-gone") // its machine is removed
	pointPagerGone   = failpoint.New("sandbox.pager-gone")   // and its pager
	pointDiskGone    = failpoint.New("sandbox.disk-gone")    // and its disk
	pointNetworkGone = failpoint.New("sandbox.network-gone") // nothing is left but folder, record and reference
	pointRefGone     = failpoint.New("sandbox.ref-gone")     // nothing is left but folder and record
)

// Failpoints are the names of this package's own steps in the life of a sandbox that boots and is destroyed. The drivers have theirs,
// and so has the writing of a record.
func Failpoints() []string {
	return failpoint.Names(pointFolder, pointGroundwork, pointBoot, pointAwake, pointStopping, pointMachineGone, pointPagerGone, pointDiskGone,
		pointNetworkGone, pointRefGone)
}

// FreezeFailpoints are the names of this package's steps in a freeze.
func FreezeFailpoints() []string {
	return failpoint.Names(pointQuiesced, pointStill, pointSnapshot, pointFrozen, pointCommitted)
}
