//go:build hostboot

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tool is the built kvmhost, and bin a folder with a program that serves HTTP, for the hosts of these tests.
var tool, bin string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "kvmhost-boot-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	tool, bin = filepath.Join(dir, "kvmhost"), filepath.Join(dir, "bin")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "serve-http"), "./testdata/serve-http").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return m.Run(), nil
}

// ended is how a run of the tool ended.
type ended struct {
	code        int
	out, errOut string
}

func kvmhost(t *testing.T, stdin io.Reader, args ...string) ended {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// qemus are the processes of this user that run QEMU and descend from the process.
func qemus(t *testing.T, of int) []int {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", of))
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, path := range list {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		for _, child := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(line, []byte("qemu-system")) {
				found = append(found, pid)
			}
			found = append(found, qemus(t, pid)...)
		}
	}
	return found
}

// TestACommandInside looks that a host has what it promises, and that streams, input and exit code pass.
func TestACommandInside(t *testing.T) {
	r := kvmhost(t, strings.NewReader("from outside\n"), "run", "--where", "emulated", "--bin", bin, "--env", "A=b c", "--", "sh", "-c",
		`cat; echo "$A"; echo problems >&2; test -c /dev/kvm && test -c /dev/mapper/control && command -v serve-http
		stat -f -c %T /var/lib/wrenn; exit 7`)
	if want := "from outside\nb c\n/opt/wrenn/bin/serve-http\nxfs\n"; r.code != 7 || r.out != want {
		t.Errorf("exit code %d, stdout %q\nstderr %s", r.code, r.out, r.errOut)
	}
	if !strings.Contains(r.errOut, "problems\n") || strings.Contains(r.errOut, "from outside") {
		t.Errorf("stderr %q", r.errOut)
	}
}

// TestAHostThatStaysUp enters one several times and reaches a port in it.
func TestAHostThatStaysUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	name := fmt.Sprintf("boot-test-%d", os.Getpid())
	if r := kvmhost(t, nil, "up", name, "--bin", bin, "--forward", fmt.Sprintf("%d:8080", port)); r.code != 0 {
		t.Fatalf("up: %d %s", r.code, r.errOut)
	}
	t.Cleanup(func() { _ = exec.Command(tool, "down", name).Run() })
	for _, step := range []struct {
		args []string
		want string
	}{
		{[]string{"exec", name, "--", "sh", "-c", "echo kept >/tmp/file; setsid serve-http 8080 >/dev/null 2>&1 </dev/null & sleep 1"}, ""},
		{[]string{"exec", name, "--", "cat", "/tmp/file"}, "kept\n"},
	} {
		if r := kvmhost(t, nil, step.args...); r.code != 0 || r.out != step.want {
			t.Fatalf("%v: %d %q %s", step.args, r.code, r.out, r.errOut)
		}
	}
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "served inside\n" {
		t.Errorf("%q, %v", body, err)
	}
	if r := kvmhost(t, nil, "down", name); r.code != 0 {
		t.Errorf("down: %d %s", r.code, r.errOut)
	}
	if r := kvmhost(t, nil, "exec", name, "--", "true"); r.code == 0 {
		t.Error("a command ran in a host that is down")
	}
}

// watcher starts the tool and kills the QEMU of its first machine once the output says so.
type watcher struct {
	t    *testing.T
	cmd  *exec.Cmd
	at   string
	once sync.Once
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps the output and kills when it is time.
func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if strings.Contains(w.text.String(), w.at) {
		w.once.Do(func() {
			list := qemus(w.t, w.cmd.Process.Pid)
			if len(list) == 0 {
				w.t.Error("no QEMU runs below the tool")
				return
			}
			if err := syscall.Kill(list[0], syscall.SIGKILL); err != nil {
				w.t.Error(err)
			}
		})
	}
	return len(p), nil
}

func killMachineAt(t *testing.T, at string, args ...string) ended {
	t.Helper()
	w := &watcher{t: t, at: at, cmd: exec.CommandContext(t.Context(), tool, args...)}
	w.cmd.Stdout, w.cmd.Stderr = w, w
	err := w.cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{code: w.cmd.ProcessState.ExitCode(), out: w.text.String()}
}

// TestALostMachineIsTold kills the machine under a command.
func TestALostMachineIsTold(t *testing.T) {
	began := time.Now()
	r := killMachineAt(t, "now", "run", "--where", "emulated", "--", "sh", "-c", "echo now; sleep 1000")
	if r.code != exitFailed || !strings.Contains(r.out, "killed") {
		t.Errorf("after %v: exit code %d\n%s", time.Since(began), r.code, r.out)
	}
}

// TestWhatWasInterruptedRunsAgain kills a machine under a package of tests: that package, and no other, runs again.
func TestWhatWasInterruptedRunsAgain(t *testing.T) {
	r := killMachineAt(t, "=== RUN   TestLife", "test", "--where", "emulated", "--hosts", "1", "../../internal/disk/devmapper/dm")
	if r.code != 0 || !strings.Contains(r.out, "LOST an emulated machine") || !strings.Contains(r.out, "is run again on a new machine") {
		t.Errorf("exit code %d\n%s", r.code, r.out)
	}
}
