package pagertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/pager"
)

const (
	roleEnv    = "WRENN_PAGERTEST"
	roleVictim = "victim"
	roleServer = "server"
)

// Main is what a program that uses this package calls before anything else. In a process that StartVictim or StartServer made, it
// does what that process is for, and ends it.
func Main() {
	var err error
	switch os.Getenv(roleEnv) {
	case roleVictim:
		err = victim()
	case roleServer:
		err = server()
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Spec is a page-fault server in a process of its own. Most fields are those of pager.Config.
type Spec struct {
	Memory
	Socket, Control  string
	PeerUID, PeerPID int
	Prefetch, Record string
	MaxPages         int
	Stream, Leave    bool
	Around           int
	DropTo           *pager.Identity
	ConnectTimeout   time.Duration
	Bare             bool // BareLoop instead of a pager
}

// Server is that process.
type Server struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr *bytes.Buffer
}

const ready = "ready\n"

// StartServer starts one and waits until it listens. End must be called.
func StartServer(spec Spec) (*Server, error) {
	cmd, err := child(roleServer)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, pager.Environment)
	data, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	s := &Server{cmd: cmd, stderr: &bytes.Buffer{}}
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), s.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := s.out.ReadString('\n'); err != nil || line != ready {
		_ = s.cmd.Wait() // it has closed its output, so it is ending
		return nil, fmt.Errorf("page-fault server: %s", strings.TrimSpace(s.stderr.String()))
	}
	return s, nil
}

// PID is the process's number.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Wait waits for its end and returns what it did, with its error as text when it failed.
func (s *Server) Wait() (pager.Stats, error) {
	var stats pager.Stats
	err := json.NewDecoder(s.out).Decode(&stats)
	if errors.Is(err, io.EOF) { // it was killed, or is a bare loop
		err = nil
	}
	if e := s.cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("%w: %s", e, strings.TrimSpace(s.stderr.String())))
	}
	return stats, err
}

// Signal sends it a signal.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// End kills it.
func (s *Server) End() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// server is the process itself.
func server() error {
	var spec Spec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return err
	}
	files, err := spec.Open()
	if err != nil {
		return err
	}
	defer CloseAll(files)
	say := func() error {
		_, err := os.Stdout.WriteString(ready)
		return err
	}
	if spec.Bare {
		return BareLoop(spec.Socket, spec.Layout, files, say)
	}
	c := pager.Config{
		Layout: spec.Layout, Files: files, Listen: pager.Socket{Path: spec.Socket, UID: spec.PeerUID, GID: spec.PeerUID},
		Peer: pager.Peer{UID: spec.PeerUID, PID: spec.PeerPID}, ConnectTimeout: spec.ConnectTimeout, Prefetch: spec.Prefetch,
		Record: spec.Record, MaxPages: spec.MaxPages, Stream: spec.Stream, Leave: spec.Leave, Around: spec.Around,
		DropTo: spec.DropTo, Ready: say, Metrics: func(s pager.Stats) { fmt.Println(s) },
	}
	if spec.Control != "" {
		c.Control = &pager.Socket{Path: spec.Control}
	}
	return pager.Run(context.Background(), c)
}

// Walk has a new Victim with all of the memory in one region do one job, served by a server of its own, and returns how long the job
// took in nanoseconds. It is one measurement.
func Walk(spec Spec, job Job) (nanos int64, err error) {
	server, err := StartServer(spec)
	if err != nil {
		return 0, err
	}
	defer server.End()
	victim, err := StartVictim()
	if err != nil {
		return 0, err
	}
	defer victim.End()
	hello := Job{Op: OpHello, Socket: spec.Socket, Regions: []RegionSpec{{Size: spec.Layout.Size()}}}
	if _, err := victim.Do(hello); err != nil {
		return 0, err
	}
	r, err := victim.Do(job)
	if err != nil {
		return 0, err
	}
	victim.End()
	if _, err := server.Wait(); err != nil {
		return 0, err
	}
	return r.Nanos, nil
}
