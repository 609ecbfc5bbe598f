package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/cleanup"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// The limits of what the agent may cost.
const (
	execLimit   = 1.3 // a command by the agent beside one that envd is asked for directly
	createLimit = 1.3 // create to first output beside Firecracker loading the same memory from a file
	heldLimit   = 100 // KiB of the agent's memory for each sandbox that runs
)

// heldCount is how many sandboxes the agent's memory is divided by.
const heldCount = 12

// agent is a `wrenn agent` of the bench's own, beside the program itself.
type agent struct {
	*client.Client
	cmd *exec.Cmd
	dir string
}

// startAgent returns when the agent answers.
func startAgent(ctx context.Context, env ...string) (a *agent, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "wrenn-bench-")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "agent.sock")
	cmd := exec.Command(filepath.Join(filepath.Dir(self), "wrenn"), "agent", "--socket", socket, "--log-format", "json", "--max-memory", "1T")
	cmd.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a = &agent{Client: client.Unix(socket), cmd: cmd, dir: dir}
	if err := a.ready(ctx); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("the agent does not answer: %w: %s", err, text), a.end())
	}
	return a, nil
}

func (a *agent) ready(ctx context.Context) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s, err := a.Host.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
		if err == nil && s.Msg.GetAdopting() == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within a minute: %w", err)
		}
	}
}

func (a *agent) end() error {
	a.Close()
	err := errors.Join(a.cmd.Process.Signal(syscall.SIGTERM), a.cmd.Wait())
	return errors.Join(err, os.RemoveAll(a.dir))
}

// create starts a sandbox from the template's warm build and returns its id.
func (a *agent) create(ctx context.Context) (id string, err error) {
	resp, err := a.Sandboxes.Create(ctx, connect.NewRequest(&pb.CreateRequest{Template: "base", Internet: true}))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetSandbox().GetId(), nil
}

// destroy ends a sandbox although the bench was interrupted.
func (a *agent) destroy(ctx context.Context, id string) error {
	return cleanup.Do(ctx, func(ctx context.Context) error {
		_, err := a.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: id, Reason: "measured"}))
		return err
	})
}

// firstOutput runs a command in a sandbox and returns when its first output came.
func (a *agent) firstOutput(ctx context.Context, id string) (time.Time, error) {
	out := &firstWrite{}
	r, err := a.Exec(ctx, &pb.ExecRequest{Id: id, Cmd: "echo", Args: []string{"hello"}}, client.Streams{Stdout: out})
	if err == nil && (r.ExitCode != 0 || out.at.IsZero()) {
		err = fmt.Errorf("echo ended with %d (%s)", r.ExitCode, r.Status)
	}
	return out.at, err
}

// byAgent measures what it costs to have an agent do it.
func (f *frozen) byAgent(ctx context.Context, runs int) (figures []figure, err error) {
	a, err := startAgent(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.end()) }()
	for _, take := range []func(context.Context, *agent, int) (figure, error){f.agentExec, f.agentCreate, agentCrowd} {
		fig, err := take(ctx, a, runs)
		if err != nil {
			return nil, err
		}
		figures = append(figures, fig)
	}
	return figures, nil
}

// agentExec measures a command's round trip, through the agent and by asking envd directly, each in a sandbox of its own: the agent alone
// knows the token of its own.
func (f *frozen) agentExec(ctx context.Context, a *agent, runs int) (_ figure, err error) {
	id, err := a.create(ctx)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, a.destroy(ctx, id)) }()
	sb, err := f.parts.Manager.Create(ctx, sandbox.Spec{Template: "base", Policy: network.Policy{Internet: true}}, nil)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, end(ctx, sb)) }()
	direct := guest.New(guest.DialFunc(sb.Dial), sb.Token)
	defer direct.Close()
	ours, bare := make([]time.Duration, 0, execsPerRun*runs), make([]time.Duration, 0, execsPerRun*runs)
	for i := range execWarmup + execsPerRun*runs {
		o, err := timed(func() error {
			_, err := a.Exec(ctx, &pb.ExecRequest{Id: id, Cmd: "true"}, client.Streams{})
			return err
		})
		if err != nil {
			return figure{}, err
		}
		b, err := timed(func() error {
			_, err := direct.Run(ctx, guest.Command{Cmd: "true", Stdout: io.Discard, Stderr: io.Discard})
			return err
		})
		if err != nil {
			return figure{}, err
		}
		if i >= execWarmup {
			ours, bare = append(ours, o), append(bare, b)
		}
	}
	return compare("a command by the agent / by envd directly", execLimit, ours, bare).overlapping(), nil
}

// A round trip is short, so each run has several, and the first in a fresh guest bring in what they touch.
const (
	execWarmup  = 3
	execsPerRun = 5
)

func timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}

// agentCreate measures create to first output beside Firecracker alone, which loads the snapshot of a bench: its machine is another one of
// the same template.
func (f *frozen) agentCreate(ctx context.Context, a *agent, runs int) (figure, error) {
	var ours, bare []time.Duration
	for i := range runs {
		b, err := f.loadBare(ctx)
		if err != nil {
			return figure{}, fmt.Errorf("bare Firecracker: %w", err)
		}
		o, err := a.createOnce(ctx)
		if err != nil {
			return figure{}, err
		}
		fmt.Printf("create %d of %d: agent %.2f s, bare Firecracker %.2f s\n", i+1, runs, o.Seconds(), b.Seconds())
		ours, bare = append(ours, o), append(bare, b)
	}
	return compare("create by the agent to first output", createLimit, ours, bare).overlapping(), nil
}

func (a *agent) createOnce(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	id, err := a.create(ctx)
	if err != nil {
		return 0, err
	}
	first, err := a.firstOutput(ctx, id)
	return first.Sub(began), errors.Join(err, a.destroy(ctx, id))
}

// agentCrowd has the agent create many at once.
func agentCrowd(ctx context.Context, a *agent, _ int) (figure, error) {
	times := make([]time.Duration, crowdSize)
	err := a.hold(ctx, crowdSize, func(i int, took time.Duration) { times[i] = took }, func() error { return nil })
	return slowest(fmt.Sprintf("%d creates at once by the agent, p95 / p50", crowdSize), times), err
}

// hold creates sandboxes at once, calls fn while they run, and destroys them.
func (a *agent) hold(ctx context.Context, count int, created func(i int, took time.Duration), fn func() error) error {
	ids := make([]string, count)
	g, gctx := errgroup.WithContext(ctx)
	for i := range count {
		g.Go(func() error {
			took, err := timed(func() (err error) {
				ids[i], err = a.create(gctx)
				return err
			})
			created(i, took)
			return err
		})
	}
	err := g.Wait()
	if err == nil {
		err = fn()
	}
	for _, id := range ids {
		if id != "" {
			err = errors.Join(err, a.destroy(ctx, id))
		}
	}
	return err
}

// agentMemory compares what an agent holds in memory with and without sandboxes that run: its heap's objects and its goroutines' stacks, as its
// own runtime counts them. What the process has of the kernel swings by more than a hundred sandboxes cost. Garbage is collected early,
// and what the agent needs once is there from a first round.
func agentMemory(ctx context.Context) (_ []figure, err error) {
	a, err := startAgent(ctx, "GOGC=10")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.end()) }()
	var without, with float64
	err = a.hold(ctx, heldCount/2, func(int, time.Duration) {}, func() error { return nil })
	if err == nil {
		without, err = a.atRest(ctx)
	}
	if err == nil {
		err = a.hold(ctx, heldCount, func(int, time.Duration) {}, func() (err error) {
			with, err = a.atRest(ctx)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	each := max(with-without, 0) / heldCount
	return []figure{{Name: "the agent's memory for a sandbox that runs / its limit", Ours: each, Theirs: heldLimit, Unit: "KiB",
		Ratio: each / heldLimit, Limit: 1, Better: "lower", Runs: 1}}, nil
}

// atRest is the least that the agent holds at some moments, in KiB: each look costs it garbage, which is not always there.
func (a *agent) atRest(ctx context.Context) (float64, error) {
	least := math.Inf(1)
	for range 30 {
		resp, err := a.Host.Metrics(ctx, connect.NewRequest(&pb.MetricsRequest{}))
		if err != nil {
			return 0, err
		}
		held, err := held(resp.Msg.GetText())
		if err != nil {
			return 0, err
		}
		least = min(least, held/1024)
		time.Sleep(100 * time.Millisecond)
	}
	return least, nil
}

// held adds up what the metrics say of heap and stacks, in bytes.
func held(metrics string) (sum float64, err error) {
	names := []string{"go_memstats_heap_alloc_bytes", "go_memstats_stack_inuse_bytes"}
	for line := range strings.Lines(metrics) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		i := slices.Index(names, name)
		if i < 0 {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum, names = sum+n, slices.Delete(names, i, i+1)
	}
	if len(names) > 0 {
		return 0, fmt.Errorf("the agent's metrics have no %s", strings.Join(names, ", "))
	}
	return sum, nil
}
