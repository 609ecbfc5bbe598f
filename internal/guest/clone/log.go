package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// forkLine is what the kernel's random driver logs when the machine's generation id has changed, after it has reseeded.
const forkLine = "random: crng reseeded due to virtual machine fork"

// isReseed reads one record: "priority,sequence,time,flags[,…];text", and below it lines with details. The text must be the line and
// nothing else, and the facility the kernel's own: the kernel gives what is written into the log by programs another one,
// whatever they ask for, and escapes line breaks and the like in names that it logs.
func isReseed(record string) bool {
	head, text, ok := strings.Cut(record, ";")
	if !ok {
		return false
	}
	priority, _, _ := strings.Cut(head, ",")
	n, err := strconv.ParseUint(priority, 10, 32)
	if err != nil || n>>3 != 0 {
		return false
	}
	line, _, _ := strings.Cut(text, "\n")
	return line == forkLine
}

// awaitReseed reads the log until the kernel has said that it reseeded.
func awaitReseed(ctx context.Context, log Log, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		record, err := log.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("the kernel did not say within %v that it reseeded its random pool: %w: %w", patience, context.Cause(ctx),
				errs.ErrUnavailable)
		case err != nil:
			return fmt.Errorf("read the kernel's log: %w: %w", err, errs.ErrUnavailable)
		case isReseed(record):
			return nil
		}
	}
}

const (
	// maxRecord is more than the kernel returns as one record; it refuses a smaller buffer instead of cutting.
	maxRecord = 16 << 10
	// look is how long a read waits before the file is read again whether or not it became readable.
	look = 50 * time.Millisecond
)

// kernelLog is /dev/kmsg. Its position is the kernel's, and is frozen with it.
type kernelLog struct{ file *os.File }

// openLog opens the kernel's log behind what was logged so far.
func openLog(path string) (*kernelLog, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	l := &kernelLog{f}
	if err := l.Mark(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return l, nil
}

// Mark implements Log.
func (l *kernelLog) Mark() error {
	_, err := l.file.Seek(0, io.SeekEnd)
	return err
}

// Next implements Log.
func (l *kernelLog) Next(ctx context.Context) (string, error) {
	buf := make([]byte, maxRecord)
	for ctx.Err() == nil {
		if err := l.file.SetReadDeadline(time.Now().Add(look)); err != nil {
			return "", err
		}
		n, err := l.file.Read(buf)
		switch {
		case err == nil:
			return string(buf[:n]), nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, os.ErrDeadlineExceeded):
			// Records were overwritten before they were read, and the next read goes on behind them; or there is none yet.
			continue
		}
		return "", err
	}
	return "", context.Cause(ctx)
}
