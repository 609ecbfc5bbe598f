package hostagent_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGuest runs commands as the test says.
type fakeGuest struct {
	run     func(ctx context.Context, cmd client.Command) (client.Result, error)
	steer   func(what string, pid uint32) error // what is asked beside a stream; nil knows no process
	signals chan syscall.Signal                 // for who runs; nil sends none
	files   *client.Client
	port    func(ctx context.Context, port int) (net.Conn, error)
}

func (g fakeGuest) Run(ctx context.Context, cmd client.Command) (client.Result, error) {
	cmd.Signals = g.signals
	return g.run(ctx, cmd)
}

func (g fakeGuest) Attach(ctx context.Context, _ uint32, cmd client.Command) (client.Result, error) {
	return g.Run(ctx, cmd)
}

func (fakeGuest) List(context.Context) ([]client.Process, error) {
	return []client.Process{{PID: 7, Cmd: "sleep"}}, nil
}

func (g fakeGuest) direct(what string, pid uint32) error {
	if g.steer == nil {
		return errs.ErrNotFound
	}
	return g.steer(what, pid)
}

func (g fakeGuest) Input(_ context.Context, pid uint32, data []byte, end bool) error {
	return g.direct(fmt.Sprintf("input %s %v", data, end), pid)
}

func (g fakeGuest) Signal(_ context.Context, pid uint32, sig syscall.Signal) error {
	return g.direct("signal "+sig.String(), pid)
}

func (g fakeGuest) Resize(_ context.Context, pid uint32, size client.Size) error {
	return g.direct(fmt.Sprintf("size %d %d", size.Cols, size.Rows), pid)
}

func (g fakeGuest) Files(user string) *client.Files { return g.files.Files(user) }

func (g fakeGuest) Port(ctx context.Context, port int) (net.Conn, error) { return g.port(ctx, port) }

func (fakeGuest) Close() {}

// echo starts as pid 7, writes its input to its output and exits with 3 when that ends.
func echo(ctx context.Context, cmd client.Command) (client.Result, error) {
	cmd.Started(7)
	buf := make([]byte, 1024)
	for {
		n, err := cmd.Stdin.Read(buf)
		if n > 0 {
			if _, err := cmd.Stdout.Write(buf[:n]); err != nil {
				return client.Result{}, err
			}
		}
		if err != nil {
			return client.Result{ExitCode: 3, Status: "exit status 3"}, ctx.Err()
		}
	}
}

// sleeper starts as pid 7 and runs until it is signalled or left.
func sleeper(ctx context.Context, cmd client.Command) (client.Result, error) {
	cmd.Started(7)
	select {
	case sig := <-cmd.Signals:
		return client.Result{ExitCode: -1, Signal: sig, Status: "signal: " + sig.String()}, nil
	case <-ctx.Done():
		return client.Result{}, context.Cause(ctx)
	}
}

type world struct {
	*sandboxtest.Host
	t     *testing.T
	guest fakeGuest

	mu      sync.Mutex
	stopped map[*hostagent.Agent]bool
}

func newWorld(t *testing.T) *world {
	return &world{Host: sandboxtest.NewHost(t), t: t, guest: fakeGuest{run: sleeper}, stopped: map[*hostagent.Agent]bool{}}
}

// agent starts one on the host; the test ends with it.
func (w *world) agent(limits quota.Amount) *hostagent.Agent {
	w.t.Helper()
	a, err := hostagent.Start(context.Background(), w.config(limits))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.close(a) })
	w.settle(a)
	return a
}

func (w *world) config(limits quota.Amount) hostagent.Config {
	return hostagent.Config{Manager: w.Manager(w.t), StateDir: w.StateDir, Limits: limits, Log: slog.New(slog.DiscardHandler),
		Guest: func(sandbox.DialFunc, string) hostagent.Guest { return w.guest }}
}

// close stops an agent, once.
func (w *world) close(a *hostagent.Agent) {
	w.mu.Lock()
	stopped := w.stopped[a]
	w.stopped[a] = true
	w.mu.Unlock()
	if stopped {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := a.Close(ctx); err != nil {
		w.t.Error(err)
	}
}

// settle waits until everything is taken over.
func (w *world) settle(a *hostagent.Agent) {
	w.t.Helper()
	for a.Status().Adopting > 0 || a.Status().Operations > 0 {
		time.Sleep(time.Millisecond)
	}
}

func (w *world) create(a *hostagent.Agent, spec hostagent.Spec) hostagent.Info {
	w.t.Helper()
	if spec.Snapshot == "" {
		spec.Template = "base"
	}
	info, _, err := a.Create(w.t.Context(), spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

func (w *world) state(a *hostagent.Agent, id string) sandbox.State {
	w.t.Helper()
	info, err := a.Get(id)
	if err != nil {
		return sandbox.Stopped
	}
	return info.State
}

// until waits for a state.
func (w *world) until(a *hostagent.Agent, id string, want sandbox.State) hostagent.Info {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if w.state(a, id) == want {
			info, _ := a.Get(id)
			return info
		}
	}
	w.t.Fatalf("%s is %s, want %s", id, w.state(a, id), want)
	return hostagent.Info{}
}

// unused says whether sandboxes take nothing: what is left is a warm build, far less than a disk.
func unused(used quota.Amount) bool {
	return used.DiskBytes < 1<<20 && used == quota.Amount{DiskBytes: used.DiskBytes}
}

// unused waits until they take nothing.
func (w *world) unused(a *hostagent.Agent) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !unused(a.Status().Used); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("they still take %+v", a.Status().Used)
		}
	}
}
