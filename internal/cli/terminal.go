package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/sandbox"
)

// runIn runs the command in the sandbox on the process's own streams, until it ends, the machine dies, or the caller stops it.
func runIn(ctx context.Context, s streams, sb *sandbox.Sandbox, f *commandFlags, command client.Command) (client.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	command.Stdout, command.Stderr = s.out, s.err
	if f.interactive {
		command.Stdin = s.in
	}
	if f.tty {
		restore, err := attachTerminal(ctx, s, &command)
		if err != nil {
			return client.Result{}, err
		}
		defer restore()
	}
	go func() {
		select {
		case <-sb.Machine.Done():
			cancel(sb.Died())
		case <-ctx.Done():
		}
	}()
	guest := client.New(client.DialFunc(sb.Dial), sb.Token)
	defer guest.Close()
	result, err := guest.Run(ctx, command)
	if err != nil && machineEnded(sb) {
		return result, sb.Died()
	}
	return result, err
}

// machineEnded says whether the machine is gone. A guest that dies breaks the stream at the same moment, and either may be
// seen first; the machine's end is the better word for it.
func machineEnded(sb *sandbox.Sandbox) bool {
	select {
	case <-sb.Machine.Done():
		return true
	default:
		return false
	}
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// attachTerminal puts the terminal into raw mode, so that every key reaches the command, and keeps the command's terminal at
// the same size. The returned function puts it back.
func attachTerminal(ctx context.Context, s streams, command *client.Command) (restore func(), err error) {
	in := s.in.(*os.File) // isTerminal was asked
	size, err := terminalSize(in)
	if err != nil {
		return nil, err
	}
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	resize := make(chan client.Size)
	command.PTY, command.Resize = &size, resize
	if command.Env["TERM"] == "" {
		command.Env["TERM"] = env("TERM", "xterm-256color")
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ctx, stop := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-changed:
				if size, err := terminalSize(in); err == nil {
					select {
					case resize <- size:
					case <-ctx.Done():
					}
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		stop()
		signal.Stop(changed)
		_ = term.Restore(int(in.Fd()), state)
	}, nil
}

func terminalSize(f *os.File) (client.Size, error) {
	cols, rows, err := term.GetSize(int(f.Fd()))
	return client.Size{Cols: uint32(cols), Rows: uint32(rows)}, err
}
