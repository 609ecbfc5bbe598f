// Package failpoint lets a test stop or fail the process at a named step, in the binary that is shipped.
//
//	var pointPlaced = failpoint.New("snapshot.placed")
//	…
//	if err := failpoint.Here(ctx, pointPlaced); err != nil {
//
// WRENN_FAILPOINT="<name>=kill" ends the process with SIGKILL when it comes to the point of that name; "<name>=error" makes the point
// return ErrInjected; "<name>=sleep" blocks it until its context ends. "<name>#3=kill" is the third time that it comes there.
//
// WRENN_FAILPOINT_DIR names a folder for a test that follows a process: the file "armed" in it holds the same as WRENN_FAILPOINT and may
// change at any time, which begins the count of the times anew, and the file "passed" gets a line with the name of each point that any
// process comes to. So what an operation passes is found and not listed by hand.
//
// A point is made by New as its package is initialised, and there is no other way to make one: All is every step that there is.
// Neither variable is set in production, and a point then costs one comparison.
//
// It is a leaf package.
package failpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	// Env is the variable that names the point and what happens there.
	Env = "WRENN_FAILPOINT"
	// EnvDir is the variable that names the folder with ArmedName and PassedName.
	EnvDir = "WRENN_FAILPOINT_DIR"
	// ArmedName is the file that holds the same as Env.
	ArmedName = "armed"
	// PassedName is the file that the points which were passed are written to, a line each.
	PassedName = "passed"
)

// ErrInjected is what a point set to "error" returns.
var ErrInjected = errors.New("injected failure")

// Point is a step at which a process can be stopped.
type Point struct{ name string }

// String is its name.
func (p Point) String() string { return p.name }

var points []string

// New makes the point of a name, which is a package's short name, a dot, and a step's. It is for the initialisation of packages, and
// panics for a name that is taken.
func New(name string) Point {
	if slices.Contains(points, name) || !strings.Contains(name, ".") || strings.ContainsAny(name, "=#\n") {
		panic(fmt.Sprintf("failpoint: %q is taken or can't be a name", name))
	}
	points = append(points, name)
	return Point{name}
}

// All are the names of the points of all packages in this program, sorted.
func All() []string { return slices.Sorted(slices.Values(points)) }

// Names are those of some points.
func Names(list ...Point) []string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.name
	}
	return names
}

// state is what the environment asks for.
var state = struct {
	dir string

	mu     sync.Mutex
	armed  string // what is in force
	times  int    // how often its point was passed since
	active bool   // false in production; it does not change
}{dir: os.Getenv(EnvDir), armed: os.Getenv(Env), active: os.Getenv(Env) != "" || os.Getenv(EnvDir) != ""}

// Here marks a step. It returns nil unless the environment asks for something at this point.
func Here(ctx context.Context, p Point) error {
	if !state.active {
		return nil
	}
	action, err := due(p.name)
	if err != nil {
		return fmt.Errorf("failpoint %s: %w", p.name, err)
	}
	switch action {
	case "":
		return nil
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "error":
		return fmt.Errorf("failpoint %s: %w", p.name, ErrInjected)
	case "sleep":
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: unknown action %q; want kill, error or sleep", Env, action)
}

// due notes that a point is passed, and returns what is to be done there now, "" for nothing.
func due(name string) (action string, err error) {
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.dir != "" {
		if err := follow(name); err != nil {
			return "", err
		}
	}
	at, action, _ := strings.Cut(state.armed, "=")
	at, time, counted := strings.Cut(at, "#")
	if at != name {
		return "", nil
	}
	state.times++
	if counted && time != strconv.Itoa(state.times) {
		return "", nil
	}
	if action == "" {
		action = "none"
	}
	return action, nil
}

// follow writes a point's name to the folder and reads what is armed there.
//
// Preconditions: state.mu is held.
func follow(name string) error {
	f, err := os.OpenFile(filepath.Join(state.dir, PassedName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(name + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	armed, err := os.ReadFile(filepath.Join(state.dir, ArmedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text := strings.TrimSpace(string(armed)); text != state.armed {
		state.armed, state.times = text, 0
	}
	return nil
}
