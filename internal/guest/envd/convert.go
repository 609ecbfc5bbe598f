package envd

import (
	"syscall"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// maxPID is the kernel's highest pid.
const maxPID = 1 << 22

// selector reads which process a request is about.
func selector(pb *processpb.ProcessSelector) (process.Selector, error) {
	switch s := pb.GetSelector().(type) {
	case *processpb.ProcessSelector_Pid:
		if s.Pid == 0 || s.Pid > maxPID {
			return process.Selector{}, fault.New(errs.ErrNotFound, "process with pid %d not found", s.Pid)
		}
		return process.Selector{PID: int(s.Pid)}, nil
	case *processpb.ProcessSelector_Tag:
		return process.Selector{Tag: &s.Tag}, nil
	}
	return process.Selector{}, fault.New(errs.ErrInvalid, "a process is selected by pid or tag; neither is there")
}

// spec reads a command. What it lacks, the caller adds: user, base environment, deadline.
func spec(pb *processpb.StartRequest) process.Spec {
	s := process.Spec{Cmd: pb.GetProcess().GetCmd(), Args: pb.GetProcess().GetArgs(), Env: pb.GetProcess().GetEnvs(),
		Cwd: pb.GetProcess().GetCwd(), Tag: pb.Tag, Stdin: pb.Stdin == nil || pb.GetStdin()}
	if pb.Pty != nil {
		size := size(pb.GetPty())
		s.Terminal = &size
	}
	return s
}

func size(pb *processpb.PTY) process.Size {
	return process.Size{Cols: pb.GetSize().GetCols(), Rows: pb.GetSize().GetRows()}
}

// data reads an input and whether it is for a terminal.
func data(pb *processpb.ProcessInput) (data []byte, terminal bool, err error) {
	switch in := pb.GetInput().(type) {
	case *processpb.ProcessInput_Stdin:
		return in.Stdin, false, nil
	case *processpb.ProcessInput_Pty:
		return in.Pty, true, nil
	}
	return nil, false, fault.New(errs.ErrInvalid, "an input is stdin or pty; neither is there")
}

func signal(pb processpb.Signal) (syscall.Signal, error) {
	switch pb {
	case processpb.Signal_SIGNAL_SIGTERM:
		return syscall.SIGTERM, nil
	case processpb.Signal_SIGNAL_SIGKILL:
		return syscall.SIGKILL, nil
	}
	return 0, fault.New(errs.ErrInvalid, "signal %d can't be sent: send SIGNAL_SIGTERM or SIGNAL_SIGKILL", pb)
}

func info(p *process.Process) *processpb.ProcessInfo {
	s := p.Spec()
	config := &processpb.ProcessConfig{Cmd: s.Cmd, Args: s.Args, Envs: s.Env}
	if s.Cwd != "" {
		config.Cwd = &s.Cwd
	}
	return &processpb.ProcessInfo{Config: config, Pid: uint32(p.PID()), Tag: s.Tag}
}

func startEvent(pid int) *processpb.ProcessEvent {
	return &processpb.ProcessEvent{Event: &processpb.ProcessEvent_Start{Start: &processpb.ProcessEvent_StartEvent{Pid: uint32(pid)}}}
}

func keepaliveEvent() *processpb.ProcessEvent {
	return &processpb.ProcessEvent{Event: &processpb.ProcessEvent_Keepalive{Keepalive: &processpb.ProcessEvent_KeepAlive{}}}
}

func dataEvent(c process.Chunk) *processpb.ProcessEvent {
	e := &processpb.ProcessEvent_DataEvent{}
	switch c.Stream {
	case process.Stdout:
		e.Output = &processpb.ProcessEvent_DataEvent_Stdout{Stdout: c.Data}
	case process.Stderr:
		e.Output = &processpb.ProcessEvent_DataEvent_Stderr{Stderr: c.Data}
	case process.Terminal:
		e.Output = &processpb.ProcessEvent_DataEvent_Pty{Pty: c.Data}
	}
	return &processpb.ProcessEvent{Event: &processpb.ProcessEvent_Data{Data: e}}
}

// endEvent repeats the status as the error of a command that did not succeed: the SDKs show that one.
func endEvent(exit process.Exit) *processpb.ProcessEvent {
	e := &processpb.ProcessEvent_EndEvent{ExitCode: int32(exit.Code), Exited: exit.Exited, Status: exit.Status}
	if exit.Code != 0 {
		e.Error = &exit.Status
	}
	return &processpb.ProcessEvent{Event: &processpb.ProcessEvent_End{End: e}}
}
