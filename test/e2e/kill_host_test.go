//go:build hosttest

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// killedIn is an operation that an agent is killed in. It begins, and ends, with the killer's two sandboxes running.
type killedIn struct {
	name string
	// prepare brings the host to where the operation begins.
	prepare func(*killer)
	// ask asks for it and returns when it is done, or the agent is gone.
	ask func(*killer) error
	// judge, with the next agent, fails the test unless everything is as before the operation or as after it, and that it can be asked for
	// again and comes to its end.
	judge func(*killer)
	// rare has only those points visited that no operation above it passes.
	rare bool
}

func nothing(*killer) {}

// operations are all that an agent does that leaves something on the host.
var operations = []killedIn{
	{name: "create", prepare: newKey, ask: (*killer).createWarm, judge: (*killer).madeWarmOnce},
	{name: "create cold", prepare: newKey, ask: func(k *killer) error { return k.createAgain(coldRequest()) },
		judge: func(k *killer) { k.madeOnce(coldRequest()) }},
	{name: "pause", prepare: nothing, ask: func(k *killer) error { return k.pause(k.subject) }, judge: (*killer).pausedOrNot},
	{name: "resume", prepare: func(k *killer) { k.must(k.pause(k.subject)) },
		ask: func(k *killer) error { return k.resume(k.subject) }, judge: (*killer).pausedOrNot},
	{name: "snapshot", prepare: nothing, ask: func(k *killer) error { return k.snapshot(k.subject, "snap") }, judge: (*killer).snapshotOrNot},
	{name: "fork", prepare: func(k *killer) { k.clone = id.New() }, ask: (*killer).fork, judge: (*killer).clonesOrNot},
	{name: "destroy", prepare: (*killer).newVictim, ask: (*killer).destroyVictim, judge: (*killer).destroyedOrNot},
	{name: "destroy paused", prepare: func(k *killer) {
		k.newVictim()
		k.must(k.pause(k.victim))
	}, ask: (*killer).destroyVictim, judge: (*killer).destroyedOrNot},
	{name: "delete snapshot", prepare: func(k *killer) { k.must(k.snapshot(k.subject, "snap")) },
		ask: func(k *killer) error { return k.deleteSnapshot("snap") }, judge: (*killer).deletedOrNot},
	{name: "expire by pause", prepare: nothing, ask: func(k *killer) error { return k.expires(k.subject, pb.Expiry_EXPIRY_PAUSE) },
		judge: func(k *killer) {
			k.must(k.expire(k.subject, 0, pb.Expiry_EXPIRY_PAUSE))
			k.pausedOrNot()
		}},
	{name: "expire by destroy", prepare: (*killer).newVictim,
		ask: func(k *killer) error { return k.expires(k.victim, pb.Expiry_EXPIRY_DESTROY) }, judge: (*killer).destroyedOrNot},
	{name: "take over", prepare: (*killer).interrupt, ask: (*killer).takeOver, judge: (*killer).pausedOrNot},
	{name: "create the first", prepare: func(k *killer) {
		k.alone()
		newKey(k)
	}, ask: (*killer).createWarm, judge: (*killer).madeWarmOnce, rare: true},
	{name: "destroy the last", prepare: func(k *killer) {
		k.alone()
		k.newVictim()
	}, ask: (*killer).destroyVictim, judge: (*killer).destroyedOrNot, rare: true},
}

func (k *killer) createWarm() error { return k.createAgain(&pb.CreateRequest{Template: "base"}) }

func (k *killer) madeWarmOnce() { k.madeOnce(&pb.CreateRequest{Template: "base"}) }

func (k *killer) newVictim() { k.victim = k.fresh() }

func (k *killer) destroyVictim() error { return k.tryDestroy(k.victim) }

// takeOver starts an agent.
func (k *killer) takeOver() error {
	k.launch()
	return k.ready()
}

// must ends the test if what it needs does not work.
func (k *killer) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// coldRequest has sizes that no warm build has, and little to boot.
func coldRequest() *pb.CreateRequest {
	return &pb.CreateRequest{Template: "base", MemoryMib: 160, DiskBytes: 3 << 30}
}

var keys int

func newKey(k *killer) {
	keys++
	k.key = fmt.Sprintf("create %d", keys)
}

// createAgain creates a sandbox with the key.
func (k *killer) createAgain(req *pb.CreateRequest) error {
	req.IdempotencyKey = k.key
	_, err := k.create(req)
	return err
}

// madeOnce asks for the sandbox again: there is one, and it runs.
func (k *killer) madeOnce(req *pb.CreateRequest) {
	k.t.Helper()
	req.IdempotencyKey = k.key
	id, err := k.create(req)
	k.must(err)
	k.only(id)
	k.try(id, "true")
	k.must(k.tryDestroy(id))
}

// pausedOrNot has the subject run again, with what it had.
func (k *killer) pausedOrNot() {
	k.t.Helper()
	k.running(k.subject)
	k.marked(k.subject, "here")
	k.only()
}

// snapshotOrNot: the snapshot is there and can be started from, or it is not there.
func (k *killer) snapshotOrNot() {
	k.t.Helper()
	k.pausedOrNot()
	if len(k.snapshots()) == 0 {
		k.must(k.snapshot(k.subject, "snap"))
	}
	id, err := k.create(&pb.CreateRequest{Snapshot: "snap"})
	k.must(err)
	k.marked(id, "here")
	k.must(k.tryDestroy(id))
	k.must(k.deleteSnapshot("snap"))
}

// fork makes one clone, of an id that is written down before.
func (k *killer) fork() error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Sandboxes.Fork(ctx, rpc.NewRequest(&pb.ForkRequest{Id: k.subject, Ids: []string{k.clone}, IdempotencyKey: k.clone}))
	return err
}

// clonesOrNot: asked for again, there is the one clone, and it runs.
func (k *killer) clonesOrNot() {
	k.t.Helper()
	k.marked(k.subject, "here")
	k.must(k.fork())
	k.only(k.clone)
	k.running(k.clone)
	k.marked(k.clone, "here")
	k.must(k.tryDestroy(k.clone))
	k.only()
}

// destroyedOrNot: the victim is there as it was, or there is nothing of it.
func (k *killer) destroyedOrNot() {
	k.t.Helper()
	if state, there := k.states()[k.victim]; there {
		if state != pb.State_STATE_RUNNING && state != pb.State_STATE_PAUSED {
			k.t.Errorf("the victim is %s", state)
		}
		k.must(k.tryDestroy(k.victim))
	}
	if err := k.tryDestroy(k.victim); !errors.Is(err, errs.ErrNotFound) {
		k.t.Errorf("one that is gone: %v", err)
	}
	k.only()
}

func (k *killer) deletedOrNot() {
	k.t.Helper()
	if len(k.snapshots()) > 0 {
		k.must(k.deleteSnapshot("snap"))
	}
	if err := k.deleteSnapshot("snap"); !errors.Is(err, errs.ErrNotFound) {
		k.t.Errorf("one that is gone: %v", err)
	}
}

// expires has a sandbox's time come, and returns when that is done or the agent is gone.
func (k *killer) expires(id string, how pb.Expiry) error {
	const line = "operation=expire"
	before := strings.Count(k.log.String(), line)
	if err := k.expire(id, 1, how); err != nil {
		return err
	}
	for deadline := time.Now().Add(2 * patience); strings.Count(k.log.String(), line) == before; time.Sleep(50 * time.Millisecond) {
		if !k.alive() {
			return errors.New("the agent has ended")
		}
		if time.Now().After(deadline) {
			return errors.New("its time does not come")
		}
	}
	return nil
}

// interrupt leaves the subject in the midst of a pause, when it is frozen, and another sandbox in the midst of its start.
func (k *killer) interrupt() {
	k.t.Helper()
	dies(k.t, "sandbox.awake", "run", "--", "true")
	k.arm("sandbox.committed")
	if err := k.pause(k.subject); err == nil {
		k.t.Fatal("the pause came to its end")
	}
	<-k.exited
	k.arm("")
}

// elsewhere are the points that no operation of an agent passes here, and who passes them.
var elsewhere = map[string]string{
	"snapshot.compact":    "a build is made compact when it is in many pieces: internal/snapshot, TestFailureAtEveryStep",
	"template.files-gone": "the one template is in use here: internal/template, TestADeleteThatIsCutOff",
	"disk.flatten-file":   "no operation makes a flat image yet: internal/disk/devmapper, TestKillAtEveryStepOfFreeze",
	"disk.flatten-base":   "as disk.flatten-file",
	"disk.flatten-store":  "as disk.flatten-file",
	"disk.flatten-synced": "as disk.flatten-file",
	"network.given":       "the agent of this test keeps no slots ready: internal/network/linux, TestKillOfWhoKeepsReady",
	"network.given-named": "as network.given",
	"network.given-rules": "as network.given",
	"network.given-open":  "as network.given",
}

// inBackground says whether a point belongs to work that fell into an operation by chance: the next time it is done already.
func inBackground(point string) bool { return elsewhere[point] != "" }

// TestKillMatrix kills the agent at each point that each operation passes, as often as it passes it, and starts it again. What is passed is
// found by doing the operation once. In CI it kills at one point of each operation, so that each kind of step is visited; WRENN_CHAOS=1
// has it kill at all, and WRENN_CHAOS=2/5 at every fifth from the second on.
func TestKillMatrix(t *testing.T) {
	nothingLeft(t)
	k := newKiller(t)
	defer k.end()
	var seen []string
	chosen := choice{}
	cases, killed := 0, 0
	for _, op := range operations {
		var points []string
		k.part(t, op.name, func() {
			for points = k.follow(op); slices.ContainsFunc(points, inBackground); {
				points = k.follow(op)
			}
			if op.rare {
				points = slices.DeleteFunc(points, func(p string) bool { return slices.Contains(seen, p) })
			}
			seen = append(seen, points...)
		})
		t.Logf("%s passes %d points: %s", op.name, len(points), strings.Join(points, " "))
		for _, point := range chosen.of(t, points) {
			cases++
			k.part(t, op.name+" at "+point, func() {
				if k.killAt(op, point) {
					killed++
				}
			})
		}
	}
	t.Logf("%d operations, %d cases, the agent was killed in %d", len(operations), cases, killed)
	if cases < len(operations) || killed < cases*9/10 {
		t.Errorf("%d cases and %d kills are too few", cases, killed)
	}
	for _, point := range failpoint.All() {
		if passed := slices.Contains(seen, point); passed == (elsewhere[point] != "") {
			t.Errorf("%s: an operation passes it: %v, elsewhere: %q", point, passed, elsewhere[point])
		}
	}
}

// part is a part of the test that finds the host in order, and whose failure is its own.
func (k *killer) part(t *testing.T, name string, fn func()) {
	t.Run(name, func(t *testing.T) {
		defer func(outer *testing.T) { k.t = outer }(k.t)
		k.t = t
		defer k.tell()
		k.begin()
		fn()
	})
}

// follow does an operation to its end and returns what it passes: a point's name, and for the second time and more the number after it.
func (k *killer) follow(op killedIn) (points []string) {
	k.t.Helper()
	op.prepare(k)
	k.passed()
	began := time.Now()
	if err := op.ask(k); err != nil {
		k.t.Fatal(err)
	}
	times := map[string]int{}
	for _, point := range k.passed() {
		if times[point]++; times[point] > 1 {
			point = fmt.Sprintf("%s#%d", point, times[point])
		}
		points = append(points, point)
	}
	k.t.Logf("it took %v and wrote %d files of state", time.Since(began), times["statefile.placed"])
	op.judge(k)
	k.settled()
	if len(points) == 0 {
		k.t.Error("it passes no point")
	}
	return points
}

// choice chooses the points that are to be visited.
type choice map[string]int // how many were chosen of each kind, which is what a point's name begins with

// of are those of an operation.
func (c choice) of(t *testing.T, points []string) []string {
	switch how := os.Getenv("WRENN_CHAOS"); how {
	case "":
		return c.one(points)
	case "1":
		return points
	default:
		var i, n int
		if _, err := fmt.Sscanf(how, "%d/%d", &i, &n); err != nil || n < 1 || i < 1 || i > n {
			t.Fatalf("WRENN_CHAOS is %q, want 1 or as 2/5", how)
		}
		var some []string
		for j := i - 1; j < len(points); j += n {
			some = append(some, points[j])
		}
		return some
	}
}

// one is one point of an operation, of the kind that was chosen least so far, and from its whole length: the same in every run.
func (c choice) one(points []string) []string {
	if len(points) == 0 {
		return nil
	}
	kindOf := func(point string) string {
		kind, _, _ := strings.Cut(point, ".")
		return kind
	}
	kind := kindOf(slices.MinFunc(points, func(a, b string) int { return c[kindOf(a)] - c[kindOf(b)] }))
	points = slices.DeleteFunc(slices.Clone(points), func(p string) bool { return kindOf(p) != kind })
	c[kind]++
	_, at := math.Modf(float64(len(c)+c[kind]) * math.Phi)
	i := int(at * float64(len(points)))
	return points[i : i+1]
}

// killAt does an operation with the agent killed at a point, and says whether it was. Of what is done as often as time makes it, the
// last times may not come.
func (k *killer) killAt(op killedIn, point string) bool {
	k.t.Helper()
	op.prepare(k)
	k.arm(point)
	err := op.ask(k)
	killed := err != nil && k.gone()
	if !killed && !strings.Contains(point, "#") {
		k.t.Errorf("the agent was not killed: %v", err)
	}
	k.up()
	op.judge(k)
	k.settled()
	return killed
}

// gone waits for the end of an agent that has broken off a call.
func (k *killer) gone() bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), patience)
	defer cancel()
	select {
	case <-k.exited:
		return true
	case <-ctx.Done():
		return false
	}
}

// forkOf asks for one clone.
func forkOf(id string) *rpc.Request[pb.ForkRequest] {
	return rpc.NewRequest(&pb.ForkRequest{Id: id, Count: 1})
}
