// Package leftovers says what of ours is on this host, whoever made it and whether or not any record knows of it.
//
// It is the one checker that tests and commands ask what was left behind. On purpose it shares no code with the drivers and
// asks none of them: it reads /proc, /sys, the state folder and the kernel's own lists, so that what a driver forgot, and
// does not list, is found all the same. Everything of ours has a prefix or lies in the state folder, and nothing else is
// reported.
//
// Foreign is the opposite: what is not ours, so that a test can look that none of it was touched.
//
// It changes nothing. It knows the form of an id and of a file of state, and else nothing of ours.
package leftovers

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/statefile"
)

// Object is one thing of ours on the host.
type Object struct {
	// Kind is "process", "cgroup", "netns", "link", "nft table", "dm", "loop", "mount", "chroot" or "file".
	Kind string `json:"kind"`
	// Name is what the host calls it: a path, a name, a process's number.
	Name string `json:"name"`
	// Owner is the sandbox that it belongs to, "ready" for a network slot that is no sandbox's yet, "" when that can't be told or when it serves several.
	Owner string `json:"owner,omitempty"`
}

// String is the object on one line.
func (o Object) String() string {
	if o.Owner == "" {
		return o.Kind + " " + o.Name
	}
	return fmt.Sprintf("%s %s of %s", o.Kind, o.Name, o.Owner)
}

// The names of ours.
const (
	prefix      = "wrenn-"
	linkPrefix  = "wrenn-v"
	uuidPrefix  = "WRENN-"
	tableName   = "wrenn"
	cgroupName  = "wrenn"
	pagersName  = "wrenn-pager"
	jailDir     = "jail"
	sandboxDir  = "sandboxes"
	slotDir     = "slots"
	loopDir     = "loops"
	lockFile    = "lock"
	recordFile  = "record.json"
	readyOwner  = "ready"       // has the network slots that are built and no sandbox's yet
	readyLock   = "slots.ready" // locked by the process that keeps them
	maxReadSize = 1 << 20       // bounds what is read of one file
)

// Find lists everything of ours on the host, sorted. An object that vanishes meanwhile is not reported.
func Find(ctx context.Context, stateDir string) ([]Object, error) {
	h, err := realHost(stateDir)
	if err != nil {
		return nil, err
	}
	return h.find(ctx)
}

// Left lists what of ours no living sandbox owns: Find without what belongs to a sandbox that a process works on, that was kept or
// that is paused, and, while there is one, without what serves all of them.
func Left(ctx context.Context, stateDir string) ([]Object, error) {
	h, err := realHost(stateDir)
	if err != nil {
		return nil, err
	}
	return h.left(ctx)
}

// host is where the objects are looked for.
type host struct {
	state, proc, sys, netns string
	links                   func() ([]string, error)            // names of the host's links
	tables                  func() ([]string, error)            // nftables tables, "family name"
	loopName                func(device string) (string, error) // the name kept in a loop device
}

func realHost(stateDir string) (*host, error) {
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, err
	}
	// Mounts and backing files are told by their true path.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return &host{state: dir, proc: "/proc", sys: "/sys", netns: "/run/netns",
		links: linkNames, tables: tableNames, loopName: loopName}, nil
}

func (h *host) find(ctx context.Context) ([]Object, error) {
	var all []Object
	for _, part := range []struct {
		what string
		list func() ([]Object, error)
	}{
		{"processes", h.processes}, {"cgroups", h.cgroups}, {"network namespaces", h.namespaces}, {"links", h.ourLinks},
		{"nftables tables", h.ourTables}, {"device-mapper devices", h.dmDevices}, {"loop devices", h.loops}, {"mounts", h.mounts},
		{"files", h.files}, {"builds", h.builds},
	} {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		some, err := part.list()
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", part.what, err)
		}
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(all), nil
}

func (h *host) left(ctx context.Context) ([]Object, error) {
	all, err := h.find(ctx)
	if err != nil {
		return nil, err
	}
	living, err := h.living()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(o Object) bool { return living[o.Owner] || o.Owner == "" && len(living) > 0 && shared(o) }), nil
}

// shared says whether the object is one that serves all sandboxes, or one that living ones are done with and the next removal takes
// along.
func shared(o Object) bool {
	switch o.Kind {
	case "nft table", "loop", "cgroup":
		return true
	case "file":
		dir := filepath.Base(filepath.Dir(o.Name))
		return dir == loopDir || dir == workingSetDir || dir == buildDir && strings.HasPrefix(filepath.Base(o.Name), buildPrefix)
	}
	return false
}

// living is the sandboxes that a process holds, that were kept, or that are paused.
func (h *host) living() (map[string]bool, error) {
	locked, err := h.locks()
	if err != nil {
		return nil, err
	}
	entries, err := readDir(filepath.Join(h.state, sandboxDir))
	if err != nil {
		return nil, err
	}
	living := map[string]bool{}
	if isLocked(locked, filepath.Join(h.state, readyLock)) {
		living[readyOwner] = true
	}
	for _, e := range entries {
		owner, ok := parseID(e)
		if !ok {
			continue
		}
		dir := filepath.Join(h.state, sandboxDir, e)
		if isLocked(locked, filepath.Join(dir, lockFile)) || stays(dir) {
			living[owner] = true
		}
	}
	return living, nil
}

// stays says whether a sandbox was made to outlive its process, is frozen, has ended and only its record is there, or has a record that
// is damaged: then nobody knows, and it is left alone.
func stays(dir string) bool {
	var record struct {
		Kept    bool            `json:"kept"`
		State   string          `json:"state"`
		Slot    json.RawMessage `json:"slot"`
		Machine json.RawMessage `json:"machine"`
	}
	err := statefile.Read(filepath.Join(dir, recordFile), maxReadSize, &record)
	if err != nil {
		return errors.Is(err, errs.ErrCorrupt)
	}
	switch record.State {
	case "running":
		return record.Kept
	case "paused":
		return true
	case "failed", "lost":
		return record.Kept && record.Slot == nil && record.Machine == nil
	}
	return false
}

// inode names a file as /proc/locks does.
func inode(dev, ino uint64) string {
	return fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), ino)
}

// locks is the files that a process has locked. They are read and not tried, because a try would get in the way of others.
func (h *host) locks() (map[string]bool, error) {
	b, err := readFile(filepath.Join(h.proc, "locks"))
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		// "1: FLOCK  ADVISORY  WRITE 700 fe:00:5242890 0 EOF"; who waits has "->" as its second word.
		if f := strings.Fields(line); len(f) >= 6 && f[1] == "FLOCK" {
			held[f[5]] = true
		}
	}
	return held, nil
}

// parseID is the sandbox id that the text is, if it is one.
func parseID(text string) (string, bool) {
	owner, err := id.Parse(text)
	return owner, err == nil
}

// below is what path has after dir, if it lies in it.
func below(dir, path string) (rest string, ok bool) {
	return strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// readDir is the names in a folder, none when it is not there.
func readDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// readFile reads a file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxReadSize))
}

// lines calls fn for each line of a file, which may be long.
func lines(path string, fn func(line string)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxReadSize)
	for s.Scan() {
		fn(s.Text())
	}
	return s.Err()
}

// gone says whether the error means that the thing is not there, or no more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}
