//go:build hosttest

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// agent is a `wrenn agent` process and a client of it.
type agent struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
	log    logged
	*client.Client
}

// logged is what a process has written so far.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// launchAgent starts one that its caller ends, with so many network slots kept ready.
func launchAgent(t *testing.T, socket string, slots int, env ...string) *agent {
	t.Helper()
	a := &agent{t: t, socket: socket, Client: client.Unix(socket),
		cmd: exec.Command(binary(t), "agent", "--socket", socket, "--warm-slots", fmt.Sprint(slots))}
	a.cmd.Stderr = &a.log
	a.cmd.Env = append(os.Environ(), env...)
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return a
}

// startAgent returns when it answers and has taken over what there is. It keeps no network slots ready: nothing is done in the background
// that a test did not ask for.
func startAgent(t *testing.T, socket string, env ...string) *agent {
	t.Helper()
	return startWarmAgent(t, socket, 0, env...)
}

// startWarmAgent is startAgent with network slots kept ready.
func startWarmAgent(t *testing.T, socket string, slots int, env ...string) *agent {
	t.Helper()
	a := launchAgent(t, socket, slots, env...)
	t.Cleanup(func() {
		a.Close()
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", a.log.String())
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		s, err := a.Host.Status(t.Context(), rpc.NewRequest(&pb.StatusRequest{}))
		if err == nil && s.Msg.GetAdopting() == 0 {
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent is not ready: %v, %v", s, err)
		}
	}
}

// exec runs a command in a sandbox and returns its output.
func (a *agent) exec(id string, args ...string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	r, err := a.Exec(ctx, &pb.ExecRequest{Id: id, Cmd: args[0], Args: args[1:]}, client.Streams{Stdout: &out, Stderr: &out})
	if err != nil || r.ExitCode != 0 {
		a.t.Fatalf("exec in %s: %+v, %v: %s", id, r, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

// TestAgentsUnderSix kills an agent under six sandboxes, and stops the next one as an upgrade does. Each time the next takes them over: the
// same machines, which ran on, with what was in their memory. One is paused and resumed, all are destroyed, and nothing is left.
func TestAgentsUnderSix(t *testing.T) {
	nothingLeft(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	a := startAgent(t, socket)
	var ids []string
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		resp, err := a.Sandboxes.Create(ctx, rpc.NewRequest(&pb.CreateRequest{Template: "base", IdempotencyKey: fmt.Sprint(i)}))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, resp.Msg.GetSandbox().GetId())
		a.exec(ids[i], "sh", "-c", fmt.Sprintf("echo %d > /dev/shm/here", i))
	}
	for _, stop := range []func(*agent){(*agent).kill, (*agent).end} {
		stop(a)
		a = startAgent(t, socket)
		for i, id := range ids {
			if got := a.exec(id, "cat", "/dev/shm/here"); got != fmt.Sprint(i) {
				t.Errorf("%s has %q, want %d", id, got, i)
			}
			resp, err := a.Sandboxes.Create(t.Context(), rpc.NewRequest(&pb.CreateRequest{Template: "base", IdempotencyKey: fmt.Sprint(i)}))
			if err != nil || resp.Msg.GetSandbox().GetId() != id {
				t.Errorf("the same key made %v, %v", resp, err)
			}
		}
	}
	if _, err := a.Sandboxes.Pause(t.Context(), rpc.NewRequest(&pb.PauseRequest{Id: ids[0]})); err != nil {
		t.Error(err)
	}
	if _, err := a.Sandboxes.Resume(t.Context(), rpc.NewRequest(&pb.ResumeRequest{Id: ids[0]})); err != nil {
		t.Error(err)
	} else if got := a.exec(ids[0], "cat", "/dev/shm/here"); got != "0" {
		t.Errorf("after pause and resume it has %q", got)
	}
	there := []string{"WRENN_AGENT_SOCKET=" + socket}
	if out := finish(t, command(t, there, "exec", ids[1], "--", "cat", "/dev/shm/here")).want(t, 0).out; out != "1\n" {
		t.Errorf("wrenn exec through the agent: %q", out)
	}
	if out := wrenn(t, "agent", "status", "--socket", socket).want(t, 0).out; !strings.Contains(out, "running") {
		t.Errorf("status: %s", out)
	}
	for _, id := range ids {
		if _, err := a.Sandboxes.Destroy(t.Context(), rpc.NewRequest(&pb.DestroyRequest{Id: id})); err != nil {
			t.Error(err)
		}
	}
	finish(t, command(t, there, "run", "--", "sh", "-c", "exit 9")).want(t, 9)
	a.end()
	wrenn(t, "host", "sweep").want(t, 0)
}

// kill ends the agent as nothing that it could prepare for does.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
	_ = a.cmd.Wait()
}

// end stops the agent as systemd does.
func (a *agent) end() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Fatal(err)
	}
	if err := a.cmd.Wait(); err != nil {
		a.t.Errorf("the agent's end: %v", err)
	}
}
