//go:build hosttest

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/network/networktest"
)

// keepReady has the driver keep slots ready until the test ends, and returns when they are.
func keepReady(t *testing.T, d *Driver, want int) {
	t.Helper()
	if err := d.KeepReady(t.Context(), want, uid, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.StopReady(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	untilReady(t, d)
}

func untilReady(t *testing.T, d *Driver) {
	t.Helper()
	for began := time.Now(); d.Ready().Ready < d.Ready().Want; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%+v", d.Ready())
		}
	}
}

func TestDriverPassesTheSuiteWithSlotsReady(t *testing.T) {
	networktest.Run(t, func(t *testing.T) networktest.Host {
		d := newDriver(t, Config{Slots: networktest.Slots})
		keepReady(t, d, 2)
		return networktest.Host{Driver: d, Serve: func(t *testing.T, sandbox string, slot network.Slot, port int) {
			go serve(newGuest(t, sandbox, slot).listen("tcp4", ":"+strconv.Itoa(port)))
		}}
	})
}

// TestReadySlots: one that is taken is one that was built, with the policy that was asked for; another is built in its place; who sweeps
// leaves them alone, and when they are no longer wanted nothing is left.
func TestReadySlots(t *testing.T) {
	newWorld(t)
	d := newDriver(t, Config{})
	keepReady(t, d, 1)
	if err := another(t, d).KeepReady(t.Context(), 1, uid, nil); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a second process that keeps some: %v", err)
	}
	if err := another(t, d).Close(t.Context()); err != nil || d.Ready().Ready != 1 {
		t.Errorf("after a sweep %+v, %v", d.Ready(), err)
	}
	open, first := acquire(t, d, network.Policy{Internet: true})
	if first.Index != 0 || d.Ready().Hits != 1 {
		t.Errorf("slot %d; %+v", first.Index, d.Ready())
	}
	reaches(t, newGuest(t, open, first), public[0])
	untilReady(t, d)
	closed, second := acquire(t, d, network.Policy{})
	if second.Index != 1 || d.Ready().Hits != 2 {
		t.Errorf("slot %d; %+v", second.Index, d.Ready())
	}
	tries(t, newGuest(t, closed, second).space, "", public[0], worldPort)
	if ids := must(d.List(t.Context()))(t); len(ids) != 2 {
		t.Errorf("List: %v", ids)
	}
	release(t, d, open)
	release(t, d, closed)
}

// TestAReadySlotThatIsGone is passed over: somebody has removed it.
func TestAReadySlotThatIsGone(t *testing.T) {
	d := newDriver(t, Config{})
	keepReady(t, d, 1)
	if err := d.sweepReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandbox, _ := acquire(t, d, network.Policy{})
	if got := d.Ready(); got.Hits != 0 || got.Misses != 1 {
		t.Errorf("%+v", got)
	}
	release(t, d, sandbox)
}

// another is a driver of the same state folder, as another process has it.
func another(t *testing.T, d *Driver) *Driver {
	t.Helper()
	return must(New(Config{StateDir: d.stateDir}))(t)
}

func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// TestHelperKeepsReady is the process that the test below ends: it keeps a slot ready and gives it to a sandbox.
func TestHelperKeepsReady(t *testing.T) {
	if os.Getenv(helperState) == "" {
		return
	}
	d := must(New(Config{StateDir: os.Getenv(helperState)}))(t)
	keepReady(t, d, 1)
	if _, err := d.Acquire(t.Context(), os.Getenv(helperSandbox), network.Policy{Internet: true}, uid); err != nil {
		t.Fatal(err)
	}
}

// TestKillOfWhoKeepsReady ends a process with SIGKILL at each step of building a slot in advance and of giving it to a sandbox. A release of
// the sandbox and a sweep leave nothing, in either order.
func TestKillOfWhoKeepsReady(t *testing.T) {
	points := slices.DeleteFunc(Failpoints(), func(p string) bool { return strings.HasSuffix(p, "-gone") || p == "network.open" })
	for i, point := range append(points, ReadyFailpoints()...) {
		t.Run(point, func(t *testing.T) {
			newWorld(t)
			d, sandbox := newDriver(t, Config{}), id.New()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestHelperKeepsReady$")
			cmd.Env = append(os.Environ(), helperState+"="+d.stateDir, helperSandbox+"="+sandbox, failpoint.Env+"="+point+"=kill")
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("it was not killed: %s", out)
			}
			other, s := acquire(t, d, network.Policy{Internet: true})
			if s.Index == 0 {
				t.Error("the dead one's slot was given away")
			}
			steps := []func(){func() { release(t, d, sandbox) }, func() {
				if err := d.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}}
			if i%2 == 1 {
				slices.Reverse(steps)
			}
			for _, step := range steps {
				step()
			}
			reaches(t, newGuest(t, other, s), public[0])
			release(t, d, other)
			if ids := must(d.List(t.Context()))(t); len(ids) != 0 {
				t.Error(fmt.Sprint("left: ", ids))
			}
		})
	}
}
