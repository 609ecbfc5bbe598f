// Package failpoint lets a test stop or fail the process at a named step, in the binary that is shipped.
//
// WRENN_FAILPOINT="<name>=kill" ends the process with SIGKILL when it reaches the point of that name;
// "<name>=error" makes the point return ErrInjected; "<name>=sleep" blocks it until its context ends. Nothing is set in
// production, and a point then costs one comparison.
//
// It is a leaf package.
package failpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Env is the variable that names the point and what happens there.
const Env = "WRENN_FAILPOINT"

// ErrInjected is what a point set to "error" returns.
var ErrInjected = errors.New("injected failure")

var target, action, _ = strings.Cut(os.Getenv(Env), "=")

// Here marks a step. It returns nil unless the environment asks for something at this name.
func Here(ctx context.Context, name string) error {
	if target == "" || name != target {
		return nil
	}
	switch action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "error":
		return fmt.Errorf("failpoint %s: %w", name, ErrInjected)
	case "sleep":
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return fmt.Errorf("%s: unknown action %q; want kill, error or sleep", Env, action)
}
