package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

func TestMain(m *testing.M) {
	// Files that this test got from who started it are not for the commands.
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen: far longer than it takes.
const patience = time.Minute

// newManager returns a manager that is closed with the test.
func newManager(t *testing.T, change func(*Limits)) *Manager {
	t.Helper()
	l := DefaultLimits()
	if change != nil {
		change(&l)
	}
	m := NewManager(l)
	t.Cleanup(m.Close)
	return m
}

// shell is a spec that runs a script as whoever runs the test.
func shell(t *testing.T, script string) Spec {
	t.Helper()
	me := user.User{Name: "tester", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: t.TempDir()}
	return Spec{Cmd: "/bin/sh", Args: []string{"-c", script}, User: me}
}

func start(t *testing.T, m *Manager, s Spec) *Subscription {
	t.Helper()
	sub, err := m.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// collect reads a subscription to its end.
func collect(t *testing.T, sub *Subscription) (out map[Stream]string, exit Exit) {
	t.Helper()
	out = map[Stream]string{}
	timeout := time.After(patience)
	for {
		select {
		case c, ok := <-sub.C():
			if !ok {
				return out, sub.Exit()
			}
			out[c.Stream] += string(c.Data)
		case <-timeout:
			t.Fatalf("no end within %v; so far %q", patience, out)
		}
	}
}

// expect reads the first stream until it contains a text.
func expect(t *testing.T, sub *Subscription, text string) string {
	t.Helper()
	var got string
	timeout := time.After(patience)
	for !strings.Contains(got, text) {
		select {
		case c, ok := <-sub.C():
			if !ok {
				t.Fatalf("the process ended; got %q, want %q", got, text)
			}
			got += string(c.Data)
		case <-timeout:
			t.Fatalf("got %q, want %q", got, text)
		}
	}
	return got
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	state, _, ok := parseStat(stat)
	return err == nil && ok && state != 'Z' && state != 'X'
}

func TestRun(t *testing.T) {
	home := t.TempDir()
	for _, c := range []struct {
		name, script, stdout, stderr string
		change                       func(*Spec)
		exit                         Exit
	}{
		{name: "streams apart", script: "echo out; echo err >&2", stdout: "out\n", stderr: "err\n",
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "exit code", script: "exit 7", exit: Exit{Code: 7, Exited: true, Status: "exit status 7"}},
		{name: "signal", script: "kill -KILL $$", exit: Exit{Code: -1, Status: "signal: killed"}},
		{name: "no input", script: "cat; echo $?", stdout: "0\n", exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "session leader", script: `read -r _ _ _ _ pgrp sid _ </proc/self/stat; [ "$$ $$" = "$pgrp $sid" ]`,
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "environment", script: "env | grep -v ^PWD= | sort", change: func(s *Spec) {
			s.User.Home = home
			s.Base = map[string]string{"A": "base", "B": "base"}
			s.Env = map[string]string{"B": "own", "C": "x y=z"}
		}, stdout: "A=base\nB=own\nC=x y=z\nHOME=" + home + "\nLOGNAME=tester\nPATH=" + defaultPath + "\nUSER=tester\n",
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "home folder", script: "pwd", change: func(s *Spec) { s.User.Home = home }, stdout: home + "\n",
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "no home folder", script: "pwd", change: func(s *Spec) { s.User.Home = "/nonexistent" }, stdout: "/\n",
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "cwd", script: "pwd", change: func(s *Spec) { s.Cwd = "/usr" }, stdout: "/usr\n",
			exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "by name in its PATH", change: func(s *Spec) {
			s.Cmd, s.Args = "tool", []string{"x"}
			s.Env = map[string]string{"PATH": "relative:" + home + ":/bin"}
			if err := os.WriteFile(filepath.Join(home, "tool"), []byte("#!/bin/sh\necho tool $1"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, stdout: "tool x\n", exit: Exit{Exited: true, Status: "exit status 0"}},
		{name: "output of a child that stays", script: "(sleep 0.2; echo late) & exit 3", stdout: "late\n",
			exit: Exit{Code: 3, Exited: true, Status: "exit status 3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shell(t, c.script)
			if c.change != nil {
				c.change(&s)
			}
			m := newManager(t, nil)
			out, exit := collect(t, start(t, m, s))
			if out[Stdout] != c.stdout || out[Stderr] != c.stderr {
				t.Errorf("got %q", out)
			}
			if exit != c.exit {
				t.Errorf("got %+v, want %+v", exit, c.exit)
			}
			if len(m.List()) != 0 {
				t.Error("an ended process is listed")
			}
		})
	}
}

func TestRefused(t *testing.T) {
	tag, long := "", strings.Repeat("x", maxTag+1)
	for _, c := range []struct {
		name, text string
		change     func(*Spec)
	}{
		{"no command", "cmd is empty", func(s *Spec) { s.Cmd = "" }},
		{"long command", "4096", func(s *Spec) { s.Cmd = strings.Repeat("x", 5000) }},
		{"unknown command", "command 'no-such-thing' not found", func(s *Spec) { s.Cmd = "no-such-thing" }},
		{"unknown path", "error starting process '/no/such': no such file or directory", func(s *Spec) { s.Cmd = "/no/such" }},
		{"a folder", "permission denied", func(s *Spec) { s.Cmd = "/usr" }},
		{"no program", "exec format error", func(s *Spec) {
			s.Cmd = filepath.Join(s.User.Home, "x")
			if err := os.WriteFile(s.Cmd, []byte("\x00\x01"), 0o755); err != nil {
				t.Fatal(err)
			}
		}},
		{"missing cwd", "cwd '/nope' does not exist", func(s *Spec) { s.Cwd = "/nope" }},
		{"cwd is a file", "cwd '/etc/passwd' is not a directory", func(s *Spec) { s.Cwd = "/etc/passwd" }},
		{"cwd below a file", "not a directory", func(s *Spec) { s.Cwd = "/etc/passwd/x" }},
		{"cwd of somebody", "another user's home", func(s *Spec) { s.Cwd = "~root" }},
		{"NUL", "NUL", func(s *Spec) { s.Args = []string{"a\x00b"} }},
		{"NUL in a variable", "NUL", func(s *Spec) { s.Env = map[string]string{"A": "\x00"} }},
		{"variable without name", `"" is no name`, func(s *Spec) { s.Env = map[string]string{"": "x"} }},
		{"variable with =", `"A=B" is no name`, func(s *Spec) { s.Env = map[string]string{"A=B": "x"} }},
		{"too many arguments", "more than 16384", func(s *Spec) { s.Args = make([]string, 20000) }},
		{"too long arguments", "more than", func(s *Spec) { s.Args = []string{strings.Repeat("x", 3<<20)} }},
		{"argument too long for the kernel", "argument list too long", func(s *Spec) { s.Args = []string{strings.Repeat("x", 1<<20)} }},
		{"empty tag", "a tag has", func(s *Spec) { s.Tag = &tag }},
		{"long tag", "a tag has", func(s *Spec) { s.Tag = &long }},
		{"large terminal", "too large", func(s *Spec) { s.Terminal = &Size{Cols: 70000, Rows: 1} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shell(t, "exit 0")
			c.change(&s)
			m := newManager(t, nil)
			_, err := m.Start(s)
			if !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want ErrInvalid with %q", err, c.text)
			}
			if m.places != 0 {
				t.Error("a place is taken")
			}
		})
	}
}

func TestFolder(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for cwd, want := range map[string]string{"": home, "~": home, "~/sub": home + "/sub", "sub": home + "/sub", "./sub/..": home, "/": "/"} {
		s := Spec{Cwd: cwd, User: user.User{Home: home}}
		if got, err := s.folder(); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", cwd, got, err, want)
		}
	}
}

func TestDeadline(t *testing.T) {
	for name, script := range map[string]string{
		"one process":                  "echo ready; exec sleep 1000",
		"a job in its own group":       "set -m; sleep 1000 & echo ready; wait",
		"only a child is left":         "sleep 1000 & echo ready",
		"who ignores other signals":    "trap '' TERM HUP INT; echo ready; while :; do sleep 1000; done",
		"output that nobody stops":     "echo ready; yes",
		"output held from outside":     "setsid sleep 15 & echo ready; wait",
		"stopped":                      "echo ready; kill -STOP $$",
		"a job that was stopped first": "set -m; sh -c 'kill -STOP $$' & echo ready; sleep 1000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, func(l *Limits) { l.Grace = 100 * time.Millisecond })
			s := shell(t, script)
			if strings.Contains(script, "set -m") { // job control needs a terminal
				s.Terminal = &Size{Cols: 80, Rows: 24}
			}
			s.Deadline = time.Now().Add(time.Second)
			sub := start(t, m, s)
			_, exit := collect(t, sub)
			if !exit.Expired {
				t.Errorf("got %+v, want it expired", exit)
			}
			if d := time.Since(s.Deadline); d < 0 || d > 10*time.Second {
				t.Errorf("it ended %v after its deadline", d)
			}
			eventually(t, "the session is empty", func() bool {
				for _, pid := range processes() {
					stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
					if state, sid, ok := parseStat(stat); err == nil && ok && sid == sub.PID() && state != 'Z' && state != 'X' {
						return false
					}
				}
				return true
			})
		})
	}
}

func TestDeadlineNotReached(t *testing.T) {
	m := newManager(t, nil)
	s := shell(t, "echo done")
	s.Deadline = time.Now().Add(patience)
	out, exit := collect(t, start(t, m, s))
	if out[Stdout] != "done\n" || exit.Expired || exit.Code != 0 {
		t.Errorf("got %q, %+v", out, exit)
	}
}

func TestSignal(t *testing.T) {
	m := newManager(t, nil)
	sub := start(t, m, shell(t, "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
	expect(t, sub, "ready")
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out, exit := collect(t, sub); out[Stdout] != "got it\n" || exit.Code != 5 {
		t.Errorf("got %q, %+v", out, exit)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("signal to an ended process: got %v", err)
	}

	s := shell(t, "set -m; sleep 1000 & echo $!; wait")
	s.Terminal = &Size{Cols: 80, Rows: 24}
	sub = start(t, m, s)
	child, err := strconv.Atoi(strings.TrimSpace(expect(t, sub, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if p, err = m.Get(Selector{PID: sub.PID()}); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, exit := collect(t, sub); exit != (Exit{Code: -1, Status: "signal: killed"}) {
		t.Errorf("got %+v", exit)
	}
	eventually(t, "the child is dead", func() bool { return !alive(child) })
}

func TestInput(t *testing.T) {
	m := newManager(t, nil)
	s := shell(t, "cat")
	s.Stdin = true
	sub := start(t, m, s)
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 100 {
		if err := p.Write(ctx, fmt.Appendf(nil, "line %d\n", i), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Write(ctx, []byte("x"), true); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("input for a terminal: got %v", err)
	}
	for range 2 {
		if err := p.CloseInput(ctx); err != nil {
			t.Fatal(err)
		}
	}
	out, exit := collect(t, sub)
	if n := strings.Count(out[Stdout], "\n"); n != 100 || !strings.HasPrefix(out[Stdout], "line 0\nline 1\n") || exit.Code != 0 {
		t.Errorf("got %d lines, %+v", n, exit)
	}
	if err := p.Write(ctx, []byte("x"), false); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("input after the end: got %v", err)
	}
}

func TestInputNotTaken(t *testing.T) {
	m := newManager(t, nil)
	s := shell(t, "read line; echo \"$line\"; sleep 1000")
	s.Stdin = true
	sub := start(t, m, s)
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := p.Write(ctx, make([]byte, 1<<20), false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write that nobody takes: got %v", err)
	}
	if err := p.Write(ctx, []byte("x"), false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write with an ended context: got %v", err)
	}
	written := make(chan error)
	go func() { written <- p.Write(context.Background(), make([]byte, 1<<20), false) }()
	go func() { written <- p.Write(context.Background(), make([]byte, 1<<20), false) }()
	time.Sleep(20 * time.Millisecond)
	p.kill()
	for range 2 {
		if err := <-written; !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("a write to a process that was killed: got %v", err)
		}
	}
	collect(t, sub)
}

func TestNoInput(t *testing.T) {
	m := newManager(t, nil)
	sub := start(t, m, shell(t, "sleep 1000"))
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(context.Background(), []byte("x"), false); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("got %v", err)
	}
	if err := p.CloseInput(context.Background()); err != nil {
		t.Errorf("closing no input: %v", err)
	}
	if err := p.Resize(Size{}); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("resizing no terminal: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	m := newManager(t, nil)
	s := shell(t, `[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty >/dev/tty; stty size; trap 'stty size' WINCH; echo ready; while [ -z "$a" ]; do read a; done; echo "got $a"; exit 4`)
	s.Terminal = &Size{Cols: 100, Rows: 40}
	sub := start(t, m, s)
	got := expect(t, sub, "ready")
	if !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "40 100") {
		t.Errorf("got %q", got)
	}
	p, err := m.Get(Selector{PID: sub.PID()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Resize(Size{Cols: 70000}); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("a size that can't be: %v", err)
	}
	if err := p.Resize(Size{Cols: 132, Rows: 50}); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := p.Write(ctx, []byte("\n"), true); err != nil { // the shell acts on the signal when read returns
		t.Fatal(err)
	}
	expect(t, sub, "50 132")
	if err := p.Write(ctx, []byte("x"), false); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("stdin for a terminal: %v", err)
	}
	if err := p.CloseInput(ctx); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("closing a terminal: %v", err)
	}
	if err := p.Write(ctx, []byte("hello\n"), true); err != nil {
		t.Fatal(err)
	}
	out, exit := collect(t, sub)
	if !strings.Contains(out[Terminal], "got hello") || exit.Code != 4 {
		t.Errorf("got %q, %+v", out, exit)
	}
}

func TestTerminalHangup(t *testing.T) {
	m := newManager(t, nil)
	s := shell(t, "trap '' HUP; sleep 1000 & echo last words; exit 0")
	s.Terminal = &Size{Cols: 80, Rows: 24}
	sub := start(t, m, s)
	defer killSession(sub.PID()) // the sleeper ignores the hangup
	if out, exit := collect(t, sub); exit.Code != 0 || !strings.Contains(out[Terminal], "last words") {
		t.Errorf("got %q, %+v", out, exit)
	}
}

// TestOnlyOwnFiles shows that a command inherits its three streams and nothing else.
func TestOnlyOwnFiles(t *testing.T) {
	m := newManager(t, nil)
	for _, terminal := range []*Size{nil, {Cols: 80, Rows: 24}} {
		s := shell(t, "exec ls /proc/self/fd")
		s.Terminal, s.Stdin = terminal, true
		out, _ := collect(t, start(t, m, s))
		if got := strings.Fields(out[Stdout] + out[Terminal]); len(got) != 4 { // and the folder that ls reads
			t.Errorf("files %q", got)
		}
	}
}

// TestNothingStays starts many processes and counts the files of this one.
func TestNothingStays(t *testing.T) {
	files := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	m := newManager(t, nil)
	before := 0
	for i := range 30 {
		s := shell(t, "echo x; read line")
		s.Stdin = true
		if i%2 == 0 {
			s.Terminal = &Size{Cols: 80, Rows: 24}
		}
		sub := start(t, m, s)
		p, err := m.Get(Selector{PID: sub.PID()})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, sub, "x")
		p.kill()
		collect(t, sub)
		if bad := (Spec{Cmd: "/no/such", User: s.User, Terminal: s.Terminal, Stdin: true}); true {
			if _, err := m.Start(bad); err == nil {
				t.Fatal("it started")
			}
		}
		if i == 1 {
			before = files()
		}
	}
	if after := files(); after > before {
		t.Errorf("%d files are open, %d were", after, before)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b (c) S 1 12 12 0 -1"))
	f.Add([]byte(""))
	f.Add([]byte(")\x00 1 1 1"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if state, sid, ok := parseStat(stat); ok && (state == 0 || !strings.Contains(string(stat), strconv.Itoa(sid)) && sid != 0) {
			// A number may be written with a sign or leading zeros.
			if !strings.ContainsAny(string(stat), "+-0") {
				t.Errorf("%q gives %c, %d", stat, state, sid)
			}
		}
	})
}
