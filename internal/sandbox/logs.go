package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm"
)

// logsName is the file in a sandbox's folder with what its machine wrote last, once that has ended by itself. It goes with the record.
const logsName = "logs.json"

const (
	// maxLogBytes is how much of each log is kept.
	maxLogBytes = 64 << 10
	// maxLogsFile bounds the file: a byte of a log takes six in it at most.
	maxLogsFile = 2*6*maxLogBytes + 1024
)

// Logs are the ends of what a machine has written, fit to be shown.
type Logs struct {
	VMM     string `json:"vmm"`     // the VMM's log
	Console string `json:"console"` // the guest's console
}

// Tail is Logs with at most limit bytes of each.
func (l Logs) Tail(limit int) Logs {
	return Logs{l.VMM[max(0, len(l.VMM)-limit):], l.Console[max(0, len(l.Console)-limit):]}
}

// keepLogs puts what a machine has written last into its sandbox's folder. That it can't keeps nobody from anything.
func (d *folder) keepLogs(m vmm.Machine) {
	var l Logs
	l.VMM, l.Console = m.ConsoleTail(maxLogBytes)
	data, err := json.Marshal(l)
	if err != nil || l == (Logs{}) {
		return
	}
	tmp := filepath.Join(d.path, logsName+".new")
	if os.WriteFile(tmp, data, 0o600) != nil || os.Rename(tmp, filepath.Join(d.path, logsName)) != nil {
		_ = os.Remove(tmp)
	}
}

// KeptLogs returns what the machine of a sandbox that has ended by itself wrote last; empty when nothing was kept. ErrNotFound when there is
// no such sandbox.
func (m *Manager) KeptLogs(_ context.Context, sandboxID string) (Logs, error) {
	if _, err := m.Get(sandboxID); err != nil {
		return Logs{}, err
	}
	f, err := os.OpenFile(filepath.Join(m.path(sandboxID), logsName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Logs{}, nil
	}
	if err != nil {
		return Logs{}, err
	}
	defer f.Close()
	var l Logs
	if err := json.NewDecoder(io.LimitReader(f, maxLogsFile)).Decode(&l); err != nil {
		return Logs{}, fmt.Errorf("the logs of %s: %w: %w", sandboxID, err, errs.ErrCorrupt)
	}
	return l, nil
}
