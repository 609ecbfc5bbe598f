package process

import (
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// Spec is a command to run.
type Spec struct {
	// Cmd is a path, or a name that is looked up in the PATH that the command gets.
	Cmd  string
	Args []string
	// Env is what the caller adds to the environment; it replaces what Base has.
	Env map[string]string
	// Base is what every command of this guest gets beside HOME, USER, LOGNAME and PATH.
	Base map[string]string
	// Cwd is the folder to start in: empty is the user's home, and `~` and relative paths start there.
	Cwd  string
	User user.User
	// Terminal gives the command a terminal of this size; nil gives it pipes.
	Terminal *Size
	// Tag is a name to find the process by; nil is none.
	Tag *string
	// Stdin gives a command without a terminal a pipe to read from; without it, its input is empty.
	Stdin bool
	// Deadline is when the command is killed; zero is never.
	Deadline time.Time
}

// Size is that of a terminal, in characters.
type Size struct{ Cols, Rows uint32 }

// maxSide is the most that the kernel's structure holds.
const maxSide = 1<<16 - 1

func (s Size) validate() error {
	if s.Cols > maxSide || s.Rows > maxSide {
		return fault.New(errs.ErrInvalid, "a terminal of %d by %d is too large", s.Cols, s.Rows)
	}
	return nil
}

// Limits bound what the callers can make envd hold. A zero limit allows nothing.
type Limits struct {
	// Processes is how many may run at once.
	Processes int
	// Subscriptions is how many may follow one process.
	Subscriptions int
	// Strings is how many arguments and variables one command may have, and Bytes their size together.
	Strings, Bytes int
	// Ended is how many ended processes are remembered, and Retain for how long.
	Ended  int
	Retain time.Duration
	// Stall is how long a reader may hold up others, and Grace how long the output of a killed process is still read.
	Stall, Grace time.Duration
}

// DefaultLimits are those of envd.
func DefaultLimits() Limits {
	return Limits{Processes: 1024, Subscriptions: 64, Strings: 16384, Bytes: 2 << 20,
		Ended: 4096, Retain: 30 * time.Second, Stall: 30 * time.Second, Grace: 5 * time.Second}
}

const (
	maxTag  = 1 << 10
	maxPath = 4096 // the kernel's PATH_MAX
)

// validate refuses what the kernel could not take and what is over the limits.
func (s *Spec) validate(l Limits) error {
	invalid := func(format string, args ...any) error { return fault.New(errs.ErrInvalid, format, args...) }
	if s.Cmd == "" {
		return invalid("cmd is empty")
	}
	if len(s.Cmd) > maxPath || len(s.Cwd) > maxPath {
		return invalid("cmd and cwd may have %d bytes", maxPath)
	}
	if s.Tag != nil && (*s.Tag == "" || len(*s.Tag) > maxTag) {
		return invalid("a tag has 1 to %d bytes", maxTag)
	}
	count, size := 1+len(s.Args)+len(s.Env), len(s.Cmd)
	nul := strings.ContainsRune(s.Cmd, 0) || strings.ContainsRune(s.Cwd, 0)
	for _, arg := range s.Args {
		size += len(arg)
		nul = nul || strings.ContainsRune(arg, 0)
	}
	for name, value := range s.Env {
		size += len(name) + len(value)
		nul = nul || strings.ContainsRune(name, 0) || strings.ContainsRune(value, 0)
		if name == "" || strings.ContainsRune(name, '=') {
			return invalid("%.100q is no name of a variable", name)
		}
	}
	switch {
	case nul:
		return invalid("cmd, args, envs and cwd can't contain a NUL byte")
	case count > l.Strings:
		return invalid("%d arguments and variables are more than %d", count, l.Strings)
	case size > l.Bytes:
		return invalid("arguments and variables of %d bytes are more than %d", size, l.Bytes)
	case s.Terminal != nil:
		return s.Terminal.validate()
	}
	return nil
}
