//go:build hosttest

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/leftovers"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// killer has agents, one after the other, that are killed in the midst of what they do. Two sandboxes are there all the time: one that
// nothing is done with, in which a command runs, and one that things are done with.
type killer struct {
	*agent
	t      *testing.T
	dir    string        // of the failpoints, see failpoint.EnvDir
	exited chan struct{} // closed when the agent has ended
	before *agent        // the one before, for its log

	bystander string
	command   uint32 // the pid of one that counts
	counted   int

	subject string
	key     string // the idempotency key of the creation under way
	victim  string // a sandbox that is to be destroyed
	clone   string // the id of a clone that is to be made, and its idempotency key
}

func newKiller(t *testing.T) *killer {
	k := &killer{t: t, dir: t.TempDir()}
	k.agent = &agent{socket: filepath.Join(t.TempDir(), "agent.sock")}
	return k
}

// end destroys all that is there. Defer it: commands are run, which a test's clean-up can't.
func (k *killer) end() {
	k.up()
	for id := range k.states() {
		k.destroy(id)
	}
	for _, name := range k.snapshots() {
		k.must(k.deleteSnapshot(name))
	}
	k.kill()
	wrenn(k.t, "host", "sweep").want(k.t, 0)
}

// launch starts an agent.
func (k *killer) launch() {
	k.t.Helper()
	k.before = k.agent
	k.agent = launchAgent(k.t, k.socket, 0, failpoint.EnvDir+"="+k.dir)
	exited, cmd := make(chan struct{}), k.cmd
	k.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// alive says whether there is an agent.
func (k *killer) alive() bool {
	if k.exited == nil {
		return false
	}
	select {
	case <-k.exited:
		return false
	default:
		return true
	}
}

// ready returns when the agent has taken over what there is and tidied up, or has ended.
func (k *killer) ready() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.t.Context()), patience)
	defer cancel()
	for k.alive() {
		s, err := k.Host.Status(ctx, rpc.NewRequest(&pb.StatusRequest{}))
		if err == nil && s.Msg.GetAdopting() == 0 && strings.Contains(k.log.String(), "operation=tidy") {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-k.exited:
		case <-ctx.Done():
			return fmt.Errorf("the agent is not ready: %w: %w", err, context.Cause(ctx))
		}
	}
	return errors.New("the agent has ended")
}

// up has an agent at work that nothing is to happen to.
func (k *killer) up() {
	k.t.Helper()
	k.arm("")
	if k.alive() {
		return
	}
	k.launch()
	if err := k.ready(); err != nil {
		k.t.Fatalf("an agent that is started again: %v\n%s", err, k.log.String())
	}
}

// kill ends the agent.
func (k *killer) kill() {
	_ = k.cmd.Process.Kill()
	<-k.exited
	k.Close()
}

// arm has the next one that comes to a point end there.
func (k *killer) arm(point string) {
	k.t.Helper()
	if point != "" {
		point += "=kill"
	}
	next, path := filepath.Join(k.dir, "next"), filepath.Join(k.dir, failpoint.ArmedName)
	if err := errors.Join(os.WriteFile(next, []byte(point), 0o600), os.Rename(next, path)); err != nil {
		k.t.Fatal(err)
	}
}

// passed are the points that were passed since the last call, in order.
func (k *killer) passed() []string {
	k.t.Helper()
	path := filepath.Join(k.dir, failpoint.PassedName)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		k.t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// call bounds one call of the agent.
func (k *killer) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(k.t.Context()), 2*patience)
}

// states are those of all sandboxes.
func (k *killer) states() map[string]pb.State {
	k.t.Helper()
	ctx, cancel := k.call()
	defer cancel()
	resp, err := k.Sandboxes.List(ctx, rpc.NewRequest(&pb.ListRequest{}))
	if err != nil {
		k.t.Fatal(err)
	}
	states := map[string]pb.State{}
	for _, s := range resp.Msg.GetSandboxes() {
		states[s.GetId()] = s.GetState()
	}
	return states
}

// only fails the test unless these are the sandboxes, besides the two.
func (k *killer) only(ids ...string) {
	k.t.Helper()
	if k.bystander != "" {
		ids = append(ids, k.bystander, k.subject)
	}
	want := slices.Sorted(slices.Values(ids))
	if got := slices.Sorted(maps.Keys(k.states())); !slices.Equal(got, want) {
		k.t.Errorf("there are %v, want %v", got, want)
	}
}

func (k *killer) create(req *pb.CreateRequest) (string, error) {
	ctx, cancel := k.call()
	defer cancel()
	resp, err := k.Sandboxes.Create(ctx, rpc.NewRequest(req))
	if err != nil {
		return "", err
	}
	return resp.Msg.GetSandbox().GetId(), nil
}

func (k *killer) pause(id string) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Sandboxes.Pause(ctx, rpc.NewRequest(&pb.PauseRequest{Id: id}))
	return err
}

func (k *killer) resume(id string) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Sandboxes.Resume(ctx, rpc.NewRequest(&pb.ResumeRequest{Id: id}))
	return err
}

func (k *killer) tryDestroy(id string) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Sandboxes.Destroy(ctx, rpc.NewRequest(&pb.DestroyRequest{Id: id}))
	return err
}

// destroy removes a sandbox, if it is there.
func (k *killer) destroy(id string) {
	k.t.Helper()
	if err := k.tryDestroy(id); err != nil && !errors.Is(err, errs.ErrNotFound) {
		k.t.Errorf("destroy %s: %v", id, err)
	}
}

func (k *killer) snapshot(id, name string) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Snapshots.CreateSnapshot(ctx, rpc.NewRequest(&pb.CreateSnapshotRequest{Id: id, Name: name}))
	return err
}

func (k *killer) deleteSnapshot(name string) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Snapshots.DeleteSnapshot(ctx, rpc.NewRequest(&pb.DeleteSnapshotRequest{Name: name}))
	return err
}

// snapshots are the names of all.
func (k *killer) snapshots() []string {
	k.t.Helper()
	ctx, cancel := k.call()
	defer cancel()
	resp, err := k.Snapshots.ListSnapshots(ctx, rpc.NewRequest(&pb.ListSnapshotsRequest{}))
	if err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, s := range resp.Msg.GetSnapshots() {
		names = append(names, s.GetName())
	}
	return names
}

func (k *killer) expire(id string, seconds uint32, how pb.Expiry) error {
	ctx, cancel := k.call()
	defer cancel()
	_, err := k.Sandboxes.SetTTL(ctx, rpc.NewRequest(&pb.SetTTLRequest{Id: id, TtlSeconds: seconds, OnExpiry: how}))
	return err
}

// running has a sandbox run: one of the two states in which an interrupted operation may have left it.
func (k *killer) running(id string) {
	k.t.Helper()
	switch s := k.states()[id]; s {
	case pb.State_STATE_RUNNING:
	case pb.State_STATE_PAUSED:
		if err := k.resume(id); err != nil {
			k.t.Fatal(err)
		}
	default:
		k.t.Fatalf("%s is %s", id, s)
	}
}

// mark writes a word to memory and to disk in a sandbox.
func (k *killer) mark(id, word string) {
	k.t.Helper()
	k.try(id, "sh", "-c", "echo "+word+" > /dev/shm/word && echo "+word+" > /var/tmp/word && sync /var/tmp/word")
}

// marked fails the test unless it has a word in both.
func (k *killer) marked(id, word string) {
	k.t.Helper()
	if got := k.try(id, "cat", "/dev/shm/word", "/var/tmp/word"); got != word+"\n"+word {
		k.t.Errorf("%s has %q in memory and on disk, want %s", id, got, word)
	}
}

func (k *killer) try(id string, args ...string) string {
	k.t.Helper()
	k.agent.t = k.t
	return k.exec(id, args...)
}

// count starts a command that counts, in the bystander, and leaves it.
func (k *killer) count() {
	k.t.Helper()
	ctx, cancel := k.call()
	defer cancel()
	started := make(chan uint32, 1)
	go func() {
		_, _ = k.Exec(ctx, &pb.ExecRequest{Id: k.bystander, Cmd: "sh", Args: []string{"-c", "i=0; while sleep 1; do i=$((i+1)); echo $i; done"}},
			client.Streams{Started: func(pid uint32) { started <- pid }})
	}()
	select {
	case k.command = <-started:
	case <-ctx.Done():
		k.t.Fatal("no command starts")
	}
	k.counted = 0
}

// counts fails the test unless the command can be joined and has gone on.
func (k *killer) counts() {
	k.t.Helper()
	ctx, cancel := k.call()
	defer cancel()
	stream, err := k.Processes.Attach(ctx, rpc.NewRequest(&pb.AttachRequest{Id: k.bystander, Pid: k.command}))
	if err != nil {
		k.t.Fatal(err)
	}
	defer stream.Close()
	r, w := io.Pipe()
	go func() {
		for stream.Receive() {
			if _, err := w.Write(stream.Msg().GetEvent().GetStdout()); err != nil {
				return
			}
		}
		w.CloseWithError(errors.Join(stream.Err(), io.ErrUnexpectedEOF))
	}()
	defer r.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		k.t.Fatalf("the command of the bystander can't be joined: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || n <= k.counted {
		k.t.Errorf("the command said %q after %d: %v", line, k.counted, err)
	}
	k.counted = n
}

// begin has an agent and both sandboxes as the next operation needs them.
func (k *killer) begin() {
	k.t.Helper()
	k.up()
	states := k.states()
	if states[k.bystander] != pb.State_STATE_RUNNING {
		k.bystander = k.fresh()
		k.count()
	}
	if states[k.subject] != pb.State_STATE_RUNNING {
		k.subject = k.fresh()
		k.mark(k.subject, "here")
	}
	for id := range k.states() {
		if id != k.bystander && id != k.subject { // of a case that failed
			k.destroy(id)
		}
	}
	for _, name := range k.snapshots() {
		k.must(k.deleteSnapshot(name))
	}
}

// alone leaves no sandbox on the host: some things are made with the first one and go with the last.
func (k *killer) alone() {
	k.t.Helper()
	k.must(k.tryDestroy(k.bystander))
	k.must(k.tryDestroy(k.subject))
	k.bystander, k.subject = "", ""
}

// fresh creates a sandbox.
func (k *killer) fresh() string {
	k.t.Helper()
	id, err := k.create(&pb.CreateRequest{Template: "base"})
	if err != nil {
		k.t.Fatal(err)
	}
	return id
}

// settled fails the test if the bystander was disturbed or anything is on the host that no sandbox has.
func (k *killer) settled() {
	k.t.Helper()
	if k.bystander != "" {
		k.counts()
	}
	left, err := leftovers.Left(context.WithoutCancel(k.t.Context()), stateDir())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, o := range left {
		k.t.Errorf("left behind: %s", o)
	}
	noHalves(k.t)
}

// tell says, when the test has failed, what the last agents said.
func (k *killer) tell() {
	if !k.t.Failed() {
		return
	}
	if k.before != nil {
		k.t.Logf("the log of the agent before:\n%s", k.before.log.String())
	}
	k.t.Logf("the agent's log:\n%s", k.log.String())
}
