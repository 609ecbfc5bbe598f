package store

import "slices"

// State is where a sandbox is in its life.
type State = string

// The states. Those on the way have an operation; those at the end are left no more.
const (
	Starting State = "starting"
	Running  State = "running"
	Pausing  State = "pausing"
	Paused   State = "paused"
	Resuming State = "resuming"
	Stopping State = "stopping"
	Stopped  State = "stopped" // asked for, or its time had come
	Failed   State = "failed"  // it ended by itself, or never started
	Lost     State = "lost"    // its host lost it
)

// States are all of them.
var States = []State{Starting, Running, Pausing, Paused, Resuming, Stopping, Stopped, Failed, Lost}

// Ended says whether a state is one of those at the end.
func Ended(s State) bool { return s == Stopped || s == Failed || s == Lost }

// Change is something that is done to a sandbox and takes time: from where it may begin, and the state while it is under way.
type Change struct {
	From []State
	Via  State
}

// The changes. Stop begins from wherever a sandbox is, and overtakes what is under way; also another Stop, whose server may be gone.
var (
	Pause  = Change{[]State{Running}, Pausing}
	Resume = Change{[]State{Paused}, Resuming}
	Stop   = Change{slices.DeleteFunc(slices.Clone(States), Ended), Stopping}
)

// goals are where the changes lead that a caller may ask for again.
var goals = map[State]State{Pausing: Paused, Resuming: Running}

// Goal is the state that a state on the way leads to, if it is one that a caller may ask for again; else it is empty.
func Goal(s State) State { return goals[s] }
