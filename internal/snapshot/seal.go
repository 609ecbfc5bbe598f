package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// A seal spares a start from hashing gigabytes that were hashed before. It holds what the kernel said of each file when its
// content was known to be right. Every way to change a file through the file system changes its ctime, and no way sets it
// back, so files with the same stamps have the same content. What changes below the file system is not noticed by a seal, for
// at most as long as the host runs: it is void after a reboot. It is no part of the build, and whatever is wrong with it
// only means that the files are hashed.

const (
	sealName    = "seal"
	sealVersion = 1
	maxSeal     = 16 << 10
)

// sealFile is what is in the file.
type sealFile struct {
	Version int              `json:"version"`
	BootID  string           `json:"boot_id"`
	Files   map[string]stamp `json:"files"`
}

// stamp is what tells a file from itself with another content.
type stamp struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime_ns"`
	Ctime int64  `json:"ctime_ns"`
}

// stamps looks at all files of the build in dir.
func stamps(dir string) (map[string]stamp, error) {
	out := map[string]stamp{}
	for _, name := range append(manifest.Names(), manifest.Name) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			return nil, fmt.Errorf("status of %s: %w", name, err)
		}
		out[name] = stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
	}
	return out, nil
}

// maxQuiet is how long quietStamps waits: some ticks of the slowest kernel clock.
const maxQuiet = 50 * time.Millisecond

// quietStamps is stamps at a time when every later change of a file will get another ctime: the kernel takes ctime from a
// clock that stands still between two ticks, so a change in the tick of the last one would not show. It fails when that
// time does not come soon, because a file is from the future.
func quietStamps(ctx context.Context, dir string) (map[string]stamp, error) {
	out, err := stamps(dir)
	if err != nil {
		return nil, err
	}
	var last int64
	for _, s := range out {
		last = max(last, s.Ctime)
	}
	for end := time.Now().Add(maxQuiet); ; {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return nil, err
		}
		if now.Nano() > last {
			return out, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("a file of %s was changed in the future", dir)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// seal notes that the files with these stamps are right, if they still have them. That it fails costs only time later.
func seal(dir string, before map[string]stamp) {
	after, err := stamps(dir)
	if err != nil || !maps.Equal(before, after) {
		return
	}
	boot, err := bootID()
	if err != nil {
		return
	}
	text, err := json.Marshal(sealFile{sealVersion, boot, after})
	if err != nil {
		return
	}
	f, err := os.CreateTemp(dir, "."+sealName+"-*")
	if err != nil {
		return
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil && closeErr == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, sealName))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// sealed tells whether the files of the build in dir are those that were right when they were last hashed.
func sealed(dir string) bool {
	f, err := openFile(dir, sealName)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSeal))
	if err != nil {
		return false
	}
	var s sealFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil || s.Version != sealVersion {
		return false
	}
	boot, err := bootID()
	if err != nil || boot != s.BootID {
		return false
	}
	now, err := stamps(dir)
	return err == nil && maps.Equal(now, s.Files)
}

// bootID changes with every start of the host.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}
