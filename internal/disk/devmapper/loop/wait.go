package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// patience is how long a device that nothing needs any more may take to go. Whoever opens it for a look, as udev does, holds
// it for that long.
const patience = 5 * time.Second

// sysBlock is where the kernel lists its block devices.
const sysBlock = "/sys/block"

// AwaitGone waits until no loop device shows a file whose path ends in suffix. ErrFailedPrecondition when one is still there
// after a while.
func AwaitGone(ctx context.Context, suffix string) error {
	var last []string
	err := poll(ctx, func() (bool, error) {
		var err error
		last, err = showing(sysBlock, suffix)
		return len(last) == 0, err
	})
	if err == nil && len(last) > 0 {
		err = fmt.Errorf("%s is still open: %w", strings.Join(last, ", "), errs.ErrFailedPrecondition)
	}
	return err
}

// showing lists the loop devices that show a file whose path ends in suffix, deleted or not.
func showing(sys, suffix string) ([]string, error) {
	devices, err := os.ReadDir(sys)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, d := range devices {
		if !strings.HasPrefix(d.Name(), "loop") {
			continue
		}
		file, err := os.ReadFile(filepath.Join(sys, d.Name(), "loop", "backing_file"))
		if err != nil {
			continue // it shows no file
		}
		path := strings.TrimSuffix(strings.TrimSuffix(string(file), "\n"), " (deleted)")
		if strings.HasSuffix(path, suffix) {
			list = append(list, d.Name())
		}
	}
	return list, nil
}

// held says whether another block device is built on loop device number.
func held(number int) bool {
	holders, err := os.ReadDir(filepath.Join(sysBlock, "loop"+strconv.Itoa(number), "holders"))
	return err == nil && len(holders) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// poll calls done until it says so or fails, the context ends, or patience runs out, which is no error. Nothing tells of a
// stranger's closing a device, so it looks again and again, ever more slowly.
func poll(ctx context.Context, done func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		ok, err := done()
		if ok || err != nil || time.Now().After(deadline) {
			return err
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
