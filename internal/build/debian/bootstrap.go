package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// Options says what Bootstrap makes. Exactly one of Dir and Tar is set; the zero value of the rest is mmdebstrap's default.
type Options struct {
	Suite   string   // release; empty is Suite
	Variant string   // which packages come without being named: "extract", "apt", "minbase", …
	Include []string // packages

	Dir string    // the folder to fill; it may exist when it is empty
	Tar io.Writer // where the tree goes as a tar archive

	Mode string   // how root's rights are had: "root", "unshare", …; empty lets mmdebstrap choose
	Skip []string // steps to leave out

	// Hooks run as shell commands, with the tree's folder as $1.
	SetupHooks, EssentialHooks, CustomizeHooks []string

	AptOptions, DpkgOptions []string

	// Epoch bounds the times of files and makes the output reproducible. Zero leaves the times as they come.
	Epoch time.Time

	// Log gets mmdebstrap's own words as they come; nil drops them. The end of them is in an error in either case.
	Log io.Writer
}

// Bootstrap makes a Debian tree. A failed run's error carries the end of mmdebstrap's log; a missing mmdebstrap or mirror is
// an errs.ErrFailedPrecondition that says what to do. Cancelling ctx lets mmdebstrap clean up and end.
func Bootstrap(ctx context.Context, o Options) error {
	if (o.Dir == "") == (o.Tar == nil) {
		return fmt.Errorf("debian.Bootstrap: exactly one of Dir and Tar: %w", errs.ErrInvalid)
	}
	program, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return fmt.Errorf("mmdebstrap is not installed; run 'apt-get install mmdebstrap': %w", errs.ErrFailedPrecondition)
	}
	sources, err := Sources()
	if err != nil {
		return err
	}
	o.AptOptions = append(proxies(ctx), o.AptOptions...)

	log := &tail{}
	cmd := exec.CommandContext(ctx, program, o.args(sources)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if !o.Epoch.IsZero() {
		cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH="+strconv.FormatInt(o.Epoch.Unix(), 10))
	}
	cmd.Stderr = log
	if o.Log != nil {
		cmd.Stderr = io.MultiWriter(log, o.Log)
	}
	cmd.Stdout = o.Tar
	if o.Tar == nil {
		cmd.Stdout = cmd.Stderr
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w; the end of its log:\n%s", errors.Join(ctx.Err(), err), log)
	}
	return nil
}

// args is mmdebstrap's command line.
func (o Options) args(sources []string) []string {
	var args []string
	each := func(flag string, values []string) {
		for _, v := range values {
			args = append(args, flag+"="+v)
		}
	}
	one := func(flag, value string) {
		if value != "" {
			args = append(args, flag+"="+value)
		}
	}
	one("--variant", o.Variant)
	one("--include", strings.Join(o.Include, ","))
	one("--mode", o.Mode)
	one("--skip", strings.Join(o.Skip, ","))
	each("--aptopt", o.AptOptions)
	each("--dpkgopt", o.DpkgOptions)
	each("--setup-hook", o.SetupHooks)
	each("--essential-hook", o.EssentialHooks)
	each("--customize-hook", o.CustomizeHooks)

	suite, target, format := o.Suite, o.Dir, "directory"
	if suite == "" {
		suite = Suite
	}
	if o.Tar != nil {
		target, format = "-", "tar"
	}
	args = append(args, "--format="+format, suite, target)
	return append(args, sources...)
}
