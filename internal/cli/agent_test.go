package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/guest/envd/envdtest"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
)

// shell is a guest whose only command says how it was called, what it was given, and exits with 7. Its files are a real envd's.
type shell struct{ files *guest.Client }

func (shell) Run(_ context.Context, cmd guest.Command) (guest.Result, error) {
	cmd.Started(1)
	if cmd.Cmd == "sleep" {
		return guest.Result{}, fmt.Errorf("it did not end within %v: %w", cmd.Timeout, context.DeadlineExceeded)
	}
	fmt.Fprint(cmd.Stdout, cmd.Cmd, cmd.Args, cmd.Env, cmd.User, cmd.Cwd)
	if cmd.Stdin != nil {
		if _, err := io.Copy(cmd.Stderr, cmd.Stdin); err != nil {
			return guest.Result{}, err
		}
	}
	return guest.Result{ExitCode: 7}, nil
}

func (s shell) Attach(ctx context.Context, _ uint32, cmd guest.Command) (guest.Result, error) {
	return s.Run(ctx, cmd)
}

func (shell) List(context.Context) ([]guest.Process, error) { return nil, nil }

func (s shell) Input(ctx context.Context, pid uint32, data []byte, end bool) error {
	return s.files.Input(ctx, pid, data, end)
}

func (s shell) Signal(ctx context.Context, pid uint32, sig syscall.Signal) error {
	return s.files.Signal(ctx, pid, sig)
}

func (s shell) Resize(ctx context.Context, pid uint32, size guest.Size) error {
	return s.files.Resize(ctx, pid, size)
}

func (s shell) Files(user string) *guest.Files { return s.files.Files(user) }

func (shell) Port(context.Context, int) (net.Conn, error) { return nil, errors.New("no port is open") }

func (shell) Close() {}

// serveAgent has an agent answer on the socket that the commands look for.
func serveAgent(t *testing.T) *hostagent.Agent {
	t.Helper()
	a, _ := serveFiles(t)
	return a
}

// serveFiles is serveAgent, and the guest that all sandboxes have.
func serveFiles(t *testing.T) (*hostagent.Agent, *envdtest.Guest) {
	t.Helper()
	h, g := sandboxtest.NewHost(t), envdtest.Start(t)
	files := guest.New(g.Dial, g.Token)
	t.Cleanup(files.Close)
	a, err := hostagent.Start(context.Background(), hostagent.Config{Manager: h.Manager(t), StateDir: h.StateDir, Log: slog.New(slog.DiscardHandler),
		Guest: func(sandbox.DialFunc, string) hostagent.Guest { return shell{files} }})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	t.Setenv("WRENN_AGENT_SOCKET", socket)
	l, err := rpc.Unix(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(ctx, rpc.Handler(a), time.Second, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, a.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return a, g
}

// wrenn runs a command line.
func wrenn(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, streams{in: strings.NewReader(stdin), out: &o, err: &e})
	return code, o.String(), e.String()
}

func TestCommandsGoThroughTheAgent(t *testing.T) {
	a := serveAgent(t)
	code, out, errOut := wrenn(t, "given", "run", "-i", "--env", "A=1", "--user", "u", "--cwd", "/c", "--", "cmd", "arg")
	if code != 7 || out != "cmd[arg] map[A:1]u/c" || errOut != "given" {
		t.Errorf("run: %d, %q, %q", code, out, errOut)
	}
	if got := a.Status().States; len(got) != 0 {
		t.Errorf("a run leaves %v", got)
	}
	if code, _, errOut := wrenn(t, "", "run", "--timeout", "1s", "--", "sleep"); code != exitTimeout || errOut != "" {
		t.Errorf("timeout: %d, %q", code, errOut)
	}
	if code, _, errOut := wrenn(t, "", "run", "--template", "none", "--", "x"); code != exitUsage || !strings.Contains(errOut, "--template") {
		t.Errorf("template: %d, %q", code, errOut)
	}
	if code, _, errOut := wrenn(t, "", "run", "--memory", "1M", "--", "x"); code != exitUsage || !strings.Contains(errOut, "give at least") {
		t.Errorf("memory: %d, %q", code, errOut)
	}
	_, _, errOut = wrenn(t, "", "run", "--keep", "--progress", "--", "x")
	list, _, err := a.List(hostagent.Filter{}, "", 9)
	if err != nil || len(list) != 1 || !strings.Contains(errOut, list[0].ID+" was kept") || !strings.Contains(errOut, "wake.reseed") {
		t.Fatalf("%v, %v, %q", list, err, errOut)
	}
	id := list[0].ID
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"exec", id, "--", "there"}, 7, "there[] map[]"}, {[]string{"pause", id}, 0, ""}, {[]string{"exec", id, "--", "x"}, exitFailed, ""},
		{[]string{"resume", id}, 0, ""}, {[]string{"snapshot", "create", id, "one"}, 0, ""}, {[]string{"run", "--snapshot", "one", "--", "x"}, 7, "x[] map[]"},
		{[]string{"snapshot", "rm", "one"}, 0, "one\n"}, {[]string{"snapshot", "rm", "one"}, exitFailed, ""}, {[]string{"fork", "--count", "0", id}, exitUsage, ""},
		{[]string{"rm", id}, 0, id + "\n"}, {[]string{"rm", id}, exitFailed, ""}, {[]string{"rm", "x"}, exitUsage, ""},
	} {
		if code, out, errOut := wrenn(t, "", c.args...); code != c.code || out != c.out {
			t.Errorf("%v: %d, %q, %q; want %d, %q", c.args, code, out, errOut, c.code, c.out)
		}
	}
}

func TestForkThroughTheAgent(t *testing.T) {
	a := serveAgent(t)
	if code, _, errOut := wrenn(t, "", "run", "--keep", "--", "x"); code != 7 {
		t.Fatal(code, errOut)
	}
	list, _, err := a.List(hostagent.Filter{}, "", 9)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	code, out, errOut := wrenn(t, "", "fork", "--count", "3", list[0].ID)
	if code != 0 || len(strings.Fields(out)) != 3 {
		t.Error(code, out, errOut)
	}
	if code, out, errOut := wrenn(t, "", "agent", "status"); code != 0 || !strings.Contains(out, "running         4") {
		t.Error(code, out, errOut)
	}
	if code, out, _ := wrenn(t, "", "agent", "status", "--json"); code != 0 || !strings.Contains(out, `"running":4`) {
		t.Error(code, out)
	}
}

func TestStatusWithoutAnAgent(t *testing.T) {
	if code, _, errOut := wrenn(t, "", "agent", "status", "--socket", "/nonexistent"); code != exitFailed || !strings.Contains(errOut, "'wrenn agent' starts one") {
		t.Error(code, errOut)
	}
}

func TestAgentFlags(t *testing.T) {
	got, err := (&agentFlags{maxSandboxes: 3, maxVCPUs: 4, maxMemory: "2G", maxDisk: "1T"}).limits()
	if err != nil || got.Sandboxes != 3 || got.VCPUs != 4 || got.MemoryMiB != 2048 || got.DiskBytes != 1<<40 {
		t.Error(got, err)
	}
	if got, err := (&agentFlags{}).limits(); err != nil || got.MemoryMiB < 100 || got.DiskBytes != 0 {
		t.Error(got, err)
	}
	socket := filepath.Join(t.TempDir(), "run", "s")
	for flag, f := range map[string]*agentFlags{
		"--max-sandboxes": {maxSandboxes: -1}, "--max-vcpus": {maxVCPUs: -1}, "--max-memory": {maxMemory: "x"}, "--max-disk": {maxDisk: "0"}, "--warm-slots": {warmSlots: -1},
		"--log-format": {logFormat: "xml"}, "--tls-cert": {listen: ":0"}, "--tls-key": {listen: ":0", tlsCert: "c"},
		"--client-ca": {listen: ":0", tlsCert: "c", tlsKey: "k"},
	} {
		_, lerr := f.limits()
		_, gerr := f.logger(io.Discard)
		if f.listen != "" {
			f.socket, gerr = socket, nil
			_, gerr = f.listeners(nil)
		}
		var fe *errs.FieldError
		if err := errors.Join(lerr, gerr); !errors.As(err, &fe) || !strings.Contains(err.Error(), flag+":") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
