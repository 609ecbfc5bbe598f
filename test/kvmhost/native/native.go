// Package native is this machine as a host: commands run on it directly, in the way that they run in the emulated host.
package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// Fit asks the built wrenn whether this machine can run sandboxes itself. Why is the reason, in words that follow a colon.
func Fit(ctx context.Context, bin string) (fit bool, why string, err error) {
	if bin == "" {
		return false, "without --bin nothing can check this machine", nil
	}
	wrenn := filepath.Join(bin, "wrenn")
	if _, err := os.Stat(wrenn); errors.Is(err, os.ErrNotExist) {
		return false, fmt.Sprintf("%s is not there to check this machine", wrenn), nil
	}
	cmd := exec.CommandContext(ctx, wrenn, "host", "check", "--json", "--require", "run")
	cmd.Env = append(os.Environ(), path(bin))
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, "it can run sandboxes itself", nil
	case errors.As(err, &exit):
		return false, reason(out, exit), nil
	default:
		return false, "", fmt.Errorf("check this machine: %w", err)
	}
}

// path is the PATH with a folder of binaries first.
func path(bin string) string { return "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH") }

// Host runs commands on this machine.
type Host struct {
	client *remote.Client
	cancel context.CancelFunc
	served chan struct{}
	env    []string
}

// New starts a host whose commands find the binaries in bin first.
func New(ctx context.Context, bin string) (*Host, error) {
	here, there, err := pair()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &Host{cancel: cancel, served: make(chan struct{}), env: []string{path(bin)}}
	go func() {
		defer close(h.served)
		_ = new(remote.Server).Serve(ctx, there)
	}()
	if h.client, err = remote.NewClient(ctx, here); err != nil {
		cancel()
		<-h.served
		return nil, err
	}
	return h, nil
}

// Run runs a command to its end and returns its exit code.
func (h *Host) Run(ctx context.Context, cmd remote.Command) (int, error) {
	cmd.Env = append(h.env, cmd.Env...)
	return h.client.Run(ctx, cmd)
}

// Close kills what still runs.
func (h *Host) Close() error {
	err := h.client.Close()
	h.cancel()
	<-h.served
	return err
}

func pair() (here, there net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket pair")
		conns[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return conns[0], conns[1], nil
}
