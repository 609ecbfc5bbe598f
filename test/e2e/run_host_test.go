//go:build hosttest

package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

func TestRunStreamsApartAndPassesTheCode(t *testing.T) {
	nothingLeft(t)
	r := wrenn(t, "run", "--progress", "--", "sh", "-c", "uname -s; . /etc/os-release; echo $ID $VERSION_ID; echo oops >&2; exit 7").want(t, 7)
	if r.out != "Linux\ndebian 13\n" {
		t.Errorf("stdout = %q", r.out)
	}
	if !strings.Contains(r.errOut, "oops\n") || !strings.Contains(r.errOut, "left behind: nothing") {
		t.Errorf("stderr = %q", r.errOut)
	}
}

func TestRunPassesInputEnvironmentUserAndFolder(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "-i", "--env", "A=x y", "--env", "B=2", "--user", "root", "--cwd", "/var/tmp", "--",
		"sh", "-c", `id -un; pwd; echo "$A|$B|$HOME"; cat`)
	cmd.Stdin = strings.NewReader("line one\nline two\n")
	if r := finish(t, cmd).want(t, 0); r.out != "root\n/var/tmp\nx y|2|/root\nline one\nline two\n" {
		t.Errorf("stdout = %q", r.out)
	}
}

func TestRunTimeout(t *testing.T) {
	nothingLeft(t)
	began := time.Now()
	wrenn(t, "run", "--timeout", "2s", "--", "sleep", "1000").want(t, 124)
	t.Logf("ended after %v", time.Since(began))
}

func TestRunTellsTheSignal(t *testing.T) {
	nothingLeft(t)
	wrenn(t, "run", "--", "sh", "-c", "kill -9 $$").want(t, 128+9)
}

func TestRunTerminal(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, []string{"TERM=xterm"}, "run", "-it", "--", "sh", "-c", "tty; stty size; read x; echo got-$x")
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111})
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	var out bytes.Buffer
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		_, _ = io.Copy(&out, term)
	}()
	if _, err := io.WriteString(term, "word\r"); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	<-seen
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"/dev/pts/", "33 111", "got-word"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal does not show %q:\n%s", want, out.String())
		}
	}
}

func TestCtrlCEndsCommandAndSandbox(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "--", "sh", "-c", "echo started; exec sleep 1000")
	started := make(chan struct{})
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("started")) {
			close(started)
		}
		return len(p), nil
	})
	go func() {
		<-started
		_ = cmd.Process.Signal(os.Interrupt)
	}()
	if r := finish(t, cmd); r.code != 128+15 && r.code != 130 {
		t.Fatalf("exit code %d\n%s", r.code, r.errOut)
	}
}

// TestCtrlCDuringTheStart stops a boot, which is long enough to be seen, as soon as the sandbox is on record.
func TestCtrlCDuringTheStart(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "--cold", "--", "true")
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			if out, err := command(t, nil, "ls").Output(); err == nil && bytes.Contains(out, []byte("starting")) {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				return
			}
			select {
			case <-tick.C:
			case <-over:
				return
			}
		}
	})
	r := finish(t, cmd)
	close(over)
	watcher.Wait()
	r.want(t, 130)
}

var idPattern = regexp.MustCompile(`cl-[0-9a-z]{20}`)

func TestKeepListSweepRemove(t *testing.T) {
	nothingLeft(t)
	r := wrenn(t, "run", "--keep", "--", "true").want(t, 0)
	id := idPattern.FindString(r.errOut)
	if id == "" {
		t.Fatalf("no id in %q", r.errOut)
	}
	if r := wrenn(t, "ls").want(t, 0); !strings.Contains(r.out, id) || !strings.Contains(r.out, "running") {
		t.Errorf("ls: %q", r.out)
	}
	if r := wrenn(t, "host", "sweep").want(t, 0); !strings.Contains(r.out, "kept") {
		t.Errorf("sweep: %q", r.out)
	}
	if r := wrenn(t, "ls").want(t, 0); !strings.Contains(r.out, id) {
		t.Errorf("the sweep removed a kept sandbox: %q", r.out)
	}
	wrenn(t, "rm", id).want(t, 0)
	wrenn(t, "rm", id).want(t, 125)
}

func TestFloodOfOutputIsPassedOn(t *testing.T) {
	nothingLeft(t)
	const n = 4 << 20
	cmd := command(t, nil, "run", "--", "sh", "-c", "yes | head -c 4194304; yes x | head -c 1000 >&2")
	var count int
	cmd.Stdout = writerFunc(func(p []byte) (int, error) { count += len(p); return len(p), nil })
	if r := finish(t, cmd).want(t, 0); count != n || len(r.errOut) != 1000 {
		t.Errorf("got %d bytes of output and %d of errors", count, len(r.errOut))
	}
}

func TestGuestDeathIsNoticedWithItsReason(t *testing.T) {
	nothingLeft(t)
	r := wrenn(t, "run", "--", "sh", "-c", "sudo sh -c 'echo b >/proc/sysrq-trigger'; sleep 1000").want(t, 125)
	if !strings.Contains(r.errOut, "(guest)") {
		t.Errorf("stderr = %q", r.errOut)
	}
}

func TestKilledMachineIsNoticed(t *testing.T) {
	nothingLeft(t)
	cmd := command(t, nil, "run", "--", "sh", "-c", "echo started; exec sleep 1000")
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if err := exec.Command("pkill", "-9", "-x", "firecracker").Run(); err != nil {
			t.Errorf("pkill: %v", err)
		}
		return len(p), nil
	})
	if r := finish(t, cmd).want(t, 125); !strings.Contains(r.errOut, "the machine ended") {
		t.Errorf("stderr = %q", r.errOut)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
