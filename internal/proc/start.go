package proc

import (
	"fmt"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// starting is held by whoever starts a process: what is set of this process for a moment, the other's inherits.
var starting sync.RWMutex

// Start starts a command with this process' own settings.
func Start(cmd *exec.Cmd) error {
	starting.RLock()
	defer starting.RUnlock()
	return cmd.Start()
}

// StartWithoutHugePages starts a command that gets no transparent huge pages, not even before its first line runs. The kernel takes that from
// the process that starts it, so this one has none either until the other runs; starts by Start wait for that moment.
func StartWithoutHugePages(cmd *exec.Cmd) error {
	starting.Lock()
	defer starting.Unlock()
	before, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("huge pages: %w", err)
	}
	if err := setNoHugePages(1); err != nil {
		return err
	}
	// What could be set once fails to be set back only in a process that is being killed; an error here would hide that the other runs.
	defer func() { _ = setNoHugePages(before) }()
	return cmd.Start()
}

func setNoHugePages(off int) error {
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, uintptr(off), 0, 0, 0); err != nil {
		return fmt.Errorf("huge pages: %w", err)
	}
	return nil
}
