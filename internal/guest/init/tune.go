package guestinit

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/init/kmsg"
)

// settings are the kernel's, where its defaults are for other machines than one that runs a person's or an agent's programs.
var settings = map[string]string{
	"net/ipv4/ping_group_range":     "0 2147483647", // ping without root
	"fs/inotify/max_user_watches":   "524288",       // editors and build tools watch whole trees
	"fs/inotify/max_user_instances": "1024",
	"vm/max_map_count":              "1048576", // as current distributions set it
	"kernel/dmesg_restrict":         "0",       // its own user's machine: the log has nothing to hide from them
}

// The open-file limits that programs start with: the soft one that select(2) can still count to, a hard one to rise to.
const softFiles, hardFiles = 1024, 524288

// tune sets what makes the system pleasant. Nothing of it is needed.
func tune() {
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			kmsg.Warn("kernel setting: %v", err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: softFiles, Max: hardFiles}); err != nil {
		kmsg.Warn("limit of open files: %v", err)
	}
}

// grow makes the root file system as big as its device, online.
func grow(device string) error {
	size, err := deviceSize(device)
	if err != nil {
		return fmt.Errorf("grow the root file system: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return fmt.Errorf("grow the root file system: %w", err)
	}
	root, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("grow the root file system: %w", err)
	}
	defer root.Close()
	if err := resize(root, uint64(size)/uint64(fs.Bsize)); err != nil {
		return fmt.Errorf("grow the root file system to %d bytes: %w", size, err)
	}
	return nil
}

func deviceSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, 2)
}
