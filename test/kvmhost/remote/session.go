package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
)

// outputPatience is how long, after a command has ended, processes that it left may hold its output open before they are
// waited for no longer.
const outputPatience = 10 * time.Second

var signals = map[ssh.Signal]syscall.Signal{
	ssh.SIGHUP: syscall.SIGHUP, ssh.SIGINT: syscall.SIGINT, ssh.SIGKILL: syscall.SIGKILL, ssh.SIGQUIT: syscall.SIGQUIT,
	ssh.SIGTERM: syscall.SIGTERM, ssh.SIGUSR1: syscall.SIGUSR1, ssh.SIGUSR2: syscall.SIGUSR2,
}

// session is one command: what its channel's requests have asked for so far, and the process.
type session struct {
	ch   ssh.Channel
	term *ptyRequest // nil when no terminal was asked for

	mu   sync.Mutex
	tty  *os.File // the terminal's other end while the command runs
	proc *os.Process
}

// runSession serves a session's requests until its channel is closed or ctx ends; the command is then killed.
func runSession(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request) {
	s := &session{ch: ch}
	stop := context.AfterFunc(ctx, func() { _ = ch.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.signal(syscall.SIGKILL)
	started := false
	for r := range requests {
		if r.Type == "exec" && !started {
			started = true
			finish := s.exec(r.Payload) // before the reply: what the client sends after it finds the command there
			_ = r.Reply(true, nil)
			wg.Go(func() { s.exit(finish()) })
			continue
		}
		ok := s.request(r)
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
}

// request serves the requests that are about a command.
func (s *session) request(r *ssh.Request) bool {
	switch r.Type {
	case "pty-req":
		s.term = new(ptyRequest)
		return ssh.Unmarshal(r.Payload, s.term) == nil
	case "window-change":
		var w windowChange
		return ssh.Unmarshal(r.Payload, &w) == nil && s.resize(w)
	case "signal":
		var name struct{ Name string }
		return ssh.Unmarshal(r.Payload, &name) == nil && s.signal(signals[ssh.Signal(name.Name)])
	default:
		return false
	}
}

// exit tells the client the command's exit code and ends the session.
func (s *session) exit(code int) {
	defer s.ch.Close()
	_ = s.ch.CloseWrite()
	_, _ = s.ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{uint32(code)}))
}

// exec starts the command that payload names. The function that it returns waits for the command's exit code.
func (s *session) exec(payload []byte) (finish func() int) {
	var line struct{ Line string }
	var wire wireCommand
	err := ssh.Unmarshal(payload, &line)
	if err == nil {
		err = json.Unmarshal([]byte(line.Line), &wire)
	}
	if err == nil && len(wire.Args) == 0 {
		err = errors.New("an empty command")
	}
	if err != nil {
		return func() int { return s.exitCode(err) }
	}
	cmd := exec.Command(wire.Args[0], wire.Args[1:]...)
	cmd.Env = append(os.Environ(), wire.Env...)
	cmd.Dir = wire.Dir
	cmd.WaitDelay = outputPatience
	start := s.startPipes
	if s.term != nil {
		start = s.startTerminal
	}
	end, err := start(cmd)
	if err != nil {
		return func() int { return s.exitCode(err) }
	}
	return func() int { return s.exitCode(end()) }
}

// startPipes starts cmd in a session of its own with the channel as its stdin, stdout and stderr.
func (s *session) startPipes(cmd *exec.Cmd) (wait func() error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = s.ch, s.ch.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.started(cmd.Process, nil)
	go func() { // ends with the channel at the latest
		_, _ = io.Copy(stdin, s.ch)
		_ = stdin.Close()
	}()
	return func() error {
		defer s.started(nil, nil)
		return cmd.Wait()
	}, nil
}

// startTerminal starts cmd on a new terminal that is copied to and from the channel.
func (s *session) startTerminal(cmd *exec.Cmd) (wait func() error, err error) {
	cmd.Env = append(cmd.Env, "TERM="+s.term.Term)
	tty, err := pty.StartWithSize(cmd, winsize(s.term.Columns, s.term.Rows))
	if err != nil {
		return nil, err
	}
	s.started(cmd.Process, tty)
	go func() { _, _ = io.Copy(tty, s.ch) }()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(s.ch, tty) // ends with EIO when the last process has left the terminal
	}()
	return func() error {
		defer tty.Close()
		err := cmd.Wait()
		s.started(nil, nil)
		select {
		case <-copied:
		case <-time.After(outputPatience):
			err = errors.Join(err, exec.ErrWaitDelay)
		}
		return err
	}, nil
}

func (s *session) exitCode(err error) int {
	if errors.Is(err, exec.ErrWaitDelay) {
		fmt.Fprintf(s.ch.Stderr(), "kvmhost: processes that the command left hold its output; not waiting for them\n")
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			return exitSignalled + int(w.Signal())
		}
		return exit.ExitCode()
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return 0
	}
	fmt.Fprintln(s.ch.Stderr(), "kvmhost:", err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return ExitNotFound
	}
	return ExitNotRunnable
}

// started notes the process that signals go to, and its terminal.
func (s *session) started(p *os.Process, tty *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc, s.tty = p, tty
}

// signal sends a signal to the command's process group, if there is one.
func (s *session) signal(sig syscall.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && sig != 0 && syscall.Kill(-s.proc.Pid, sig) == nil
}

func (s *session) resize(w windowChange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tty != nil && pty.Setsize(s.tty, winsize(w.Columns, w.Rows)) == nil
}

func winsize(columns, rows uint32) *pty.Winsize {
	return &pty.Winsize{Cols: uint16(min(columns, 1<<16-1)), Rows: uint16(min(rows, 1<<16-1))}
}
