package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/layout"
	"wrenn.dev/wrenn/test/kvmhost/machine"
	"wrenn.dev/wrenn/test/kvmhost/remote"
	"wrenn.dev/wrenn/test/kvmhost/schedule"
	"wrenn.dev/wrenn/test/kvmhost/suite"
)

// testFlags are the flags of 'test' besides those of its hosts.
type testFlags struct {
	host    hostFlags
	where   string
	hosts   int
	split   []string
	run     string
	timeout time.Duration
	env     []string
}

func newTest() *cobra.Command {
	var flags testFlags
	cmd := &cobra.Command{
		Use:   "test [PACKAGE…]",
		Short: "Run host tests: those in files with the build tag hosttest",
		Long: `Test builds the test binaries of the packages that have host tests (default: all of the module), puts them into emulated
hosts that run side by side, and shares the packages among them. Each binary runs its host tests only, in a folder that holds
the package's testdata, with WRENN_BIN and WRENN_IMAGES set.

It fails when a test fails, is skipped, or is not seen to end. If an emulated machine dies or hangs, a new one is booted and the
package that was interrupted, nothing else, is run again: at most twice in a run, and loudly.`,
		Example: `  kvmhost test --bin bin --images DIR
  kvmhost test ./internal/disk/... --run TestCreate
  kvmhost test --split ./test/e2e            one test at a time: what is long is shared better`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return test(ctx, &flags, args)
		},
	}
	flags.host.register(cmd.Flags())
	f := cmd.Flags()
	f.StringVar(&flags.where, "where", whereAuto, whereHelp)
	f.IntVar(&flags.hosts, "hosts", 2, "emulated hosts side by side")
	f.StringArrayVar(&flags.split, "split", nil, "package whose tests are shared one by one (may be repeated)")
	f.StringVar(&flags.run, "run", "", "run the tests whose names match, as go test's -run")
	f.DurationVar(&flags.timeout, "timeout", 20*time.Minute, "time for one package, or for one test of a split one")
	f.StringArrayVar(&flags.env, "env", nil, "K=V for the tests (may be repeated)")
	return cmd
}

func (f *testFlags) check() error {
	if f.hosts < 1 {
		return errs.Field("--hosts", fmt.Sprintf("%d is too few", f.hosts), "give 1 or more")
	}
	if f.timeout <= 0 {
		return errs.Field("--timeout", fmt.Sprintf("%v is no time", f.timeout), "give a duration, as 10m")
	}
	return f.host.check()
}

// testRun is one run of the command.
type testRun struct {
	flags  *testFlags
	native bool
	stage  string // folder of the test binaries
	out    *labeller
	log    io.Writer
}

func test(ctx context.Context, flags *testFlags, patterns []string) error {
	items, packages, err := selectItems(ctx, flags, patterns)
	if err != nil {
		return err
	}
	t := &testRun{flags: flags, out: &labeller{out: os.Stdout}, log: os.Stderr}
	if t.native, err = useNative(ctx, flags.where, flags.host.bin, t.log); err != nil {
		return err
	}
	if t.stage, err = stageFolder(); err != nil {
		return err
	}
	defer os.RemoveAll(t.stage)
	done := stopwatch(t.log, fmt.Sprintf("build the host tests of %d packages", len(packages)))
	err = suite.Build(ctx, t.stage, packages)
	done(err)
	if err != nil {
		return err
	}
	hosts := flags.hosts
	if t.native {
		hosts = 1
	}
	began := time.Now()
	queue := schedule.Queue[suite.Item, suite.Verdict]{Items: items, Hosts: hosts, Boot: t.boot, OnLoss: t.reportLoss}
	outcomes := queue.Run(ctx)
	if err := summarize(os.Stdout, outcomes, time.Since(began)); err != nil {
		return err
	}
	return ctx.Err()
}

// selectItems finds what is to be run and the packages that it is in.
func selectItems(ctx context.Context, flags *testFlags, patterns []string) ([]suite.Item, []suite.Package, error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	packages, err := suite.Discover(ctx, patterns...)
	if err != nil {
		return nil, nil, err
	}
	split := make(map[string]bool)
	if len(flags.split) > 0 {
		list, err := suite.Discover(ctx, flags.split...)
		if err != nil {
			return nil, nil, fmt.Errorf("--split: %w", err)
		}
		for _, p := range list {
			split[p.ImportPath] = true
		}
	}
	items, err := suite.Select(packages, split, flags.run)
	if err != nil {
		return nil, nil, err
	}
	if len(items) == 0 {
		return nil, nil, fmt.Errorf("no host test matches --run %q in %d packages with host tests: %w", flags.run, len(packages), errs.ErrNotFound)
	}
	chosen := make(map[string]bool)
	for _, i := range items {
		chosen[i.Package.ImportPath] = true
	}
	var needed []suite.Package
	for _, p := range packages {
		if chosen[p.ImportPath] {
			needed = append(needed, p)
		}
	}
	return items, needed, nil
}

// stageFolder makes the folder that test binaries are built into.
func stageFolder() (string, error) {
	cache, err := buildcache.Dir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "kvmhost-tests")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(parent, "")
}

// boot makes the host with number n.
func (t *testRun) boot(ctx context.Context, n int) (schedule.Host[suite.Item, suite.Verdict], error) {
	name := ""
	if t.flags.hosts > 1 {
		name = fmt.Sprintf(" %d", n+1)
	}
	h, env, err := openTestHost(ctx, t, name)
	if err != nil {
		return nil, lostOr(err)
	}
	return &testHost{run: t, host: h, env: append(env, t.flags.env...)}, nil
}

func openTestHost(ctx context.Context, t *testRun, name string) (host, []string, error) {
	if t.native {
		return openHost(ctx, true, &t.flags.host, t.log)
	}
	o, err := t.flags.host.options(t.log)
	if err != nil {
		return nil, nil, err
	}
	o.Tests = t.stage
	h, err := boot(ctx, o, name, t.log)
	return h, t.flags.host.insideEnvironment(), err
}

// testHost runs items on a host.
type testHost struct {
	run  *testRun
	host host
	env  []string
}

// Do runs a test binary and judges what it did.
func (h *testHost) Do(ctx context.Context, item suite.Item) (suite.Verdict, error) {
	root := layout.Tests
	if h.run.native {
		root = h.run.stage
	}
	var judge suite.Judge
	out := h.run.out.label(item.Label())
	defer out.Close()
	both := io.MultiWriter(out, &judge)
	code, err := h.host.Run(ctx, remote.Command{
		Args: []string{item.Package.Binary(root), "-test.v", "-test.count=1", "-test.paniconexit0",
			"-test.timeout=" + h.run.flags.timeout.String(), "-test.run=" + item.RunPattern()},
		Env: h.env, Dir: path.Clean(item.Package.Folder(root)), Stdout: both, Stderr: both,
	})
	if err != nil {
		return suite.Broken(item, err), lostOr(err)
	}
	return judge.Verdict(item, code), nil
}

// Close ends the host.
func (h *testHost) Close() error { return h.host.Close() }

// lostOr marks an error that a lost machine caused.
func lostOr(err error) error {
	var lost *machine.Lost
	if errors.As(err, &lost) {
		return fmt.Errorf("%w: %w", schedule.ErrLost, err)
	}
	return err
}

// reportLoss tells all that is known of a machine's end.
func (t *testRun) reportLoss(item suite.Item, err error, again bool) {
	var lost *machine.Lost
	if errors.As(err, &lost) {
		fmt.Fprint(t.log, "kvmhost: ", lost.Report())
	}
	next := fmt.Sprintf("is NOT run again: %d were already", schedule.MaxRepeats)
	if again {
		next = "is run again on a new machine"
	}
	fmt.Fprintf(t.log, "kvmhost: LOST an emulated machine under %s, which %s\n", item.Label(), next)
}
