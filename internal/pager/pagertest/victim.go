package pagertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// RegionSpec is a piece of a Victim's memory.
type RegionSpec struct {
	Offset uint64 // in guest memory
	Size   uint64
	Huge   bool // of pages of 2 MiB, which the host must have reserved
}

// Job is what a Victim is asked to do.
type Job struct {
	Op      string       // one of the Op constants
	Socket  string       // OpHello
	Regions []RegionSpec // OpHello
	Offsets []uint64     // OpTouch: the pages to read, in this order; OpWalk: the same, when given
	From    uint64       // OpWalk, OpRemove, OpChurn: the range in guest memory
	To      uint64
	Threads int      // OpTouch: each reads all pages; OpWalk: each has its part; OpChurn: who reads while memory is taken away
	Rounds  int      // OpRemove, OpChurn: how many times
	Sums    []uint32 // OpChurn: what the pages of the range hold before they are taken away
}

// What a Victim does.
const (
	OpHello  = "hello"  // map and register the regions, connect and send them, as Firecracker does
	OpTouch  = "touch"  // read pages and report their checksums
	OpWalk   = "walk"   // read one byte of each page and report the time
	OpRemove = "remove" // madvise(MADV_DONTNEED), as the balloon does
	OpChurn  = "churn"  // remove and read at the same time, and fail when a page is neither as it was nor zero, or not zero after its removal
)

// Result is what came of it.
type Result struct {
	Err   string
	Sums  []uint32 // OpTouch: one for each offset
	Nanos int64    // OpWalk
}

// Victim is a process that behaves towards a pager as Firecracker does.
type Victim struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

// child prepares to start this program again in a role.
func child(role string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	// Neither process is to be stopped by its own runtime while a thread of it sleeps in a fault.
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// StartVictim starts one. End must be called.
func StartVictim() (*Victim, error) {
	cmd, err := child(roleVictim)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Victim{cmd, json.NewEncoder(in), json.NewDecoder(out)}, nil
}

// PID is the process's number.
func (v *Victim) PID() int { return v.cmd.Process.Pid }

// Do has it do a job. It takes as long as the pager lets it: a Victim without a pager hangs until End.
func (v *Victim) Do(j Job) (Result, error) {
	if err := v.Begin(j); err != nil {
		return Result{}, err
	}
	return v.Result()
}

// Begin is the first half of Do.
func (v *Victim) Begin(j Job) error { return v.in.Encode(j) }

// Result is the second half of Do.
func (v *Victim) Result() (Result, error) {
	var r Result
	if err := v.out.Decode(&r); err != nil {
		return r, fmt.Errorf("victim: %w", err)
	}
	if r.Err != "" {
		return r, errors.New("victim: " + r.Err)
	}
	return r, nil
}

// End kills it.
func (v *Victim) End() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}
