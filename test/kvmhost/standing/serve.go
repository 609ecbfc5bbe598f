package standing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// Serve keeps a host up until Down, the end of ctx or the host's own. It takes the name first: the error is an
// errs.ErrAlreadyExists when a host of that name is up. Then it calls boot, and ready once Connect works. Notes are what List
// tells of it.
func Serve(ctx context.Context, name, notes string, boot func(context.Context) (Host, error), ready func()) error {
	dir, err := folder(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	held, ok, err := lock(dir)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("host %q is up already; 'kvmhost down %s' ends it: %w", name, name, errs.ErrAlreadyExists)
	}
	defer held.Close()
	if err := prepare(dir, held, notes); err != nil {
		return err
	}
	host, err := boot(ctx)
	if err == nil {
		err = keep(ctx, dir, host, ready)
	}
	var lost interface{ Report() string }
	if errors.As(err, &lost) {
		return errors.Join(err, os.Remove(filepath.Join(dir, socketFile)), os.WriteFile(filepath.Join(dir, lostFile), []byte(lost.Report()), 0o600))
	}
	return errors.Join(err, discard(dir))
}

// discard removes a host's folder. Who waits for the host's end may make its lock anew in the midst of that.
func discard(dir string) (err error) {
	for range 100 {
		if err = os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// prepare clears what an earlier process left and writes who has the lock now.
func prepare(dir string, held *os.File, notes string) error {
	for _, name := range []string{socketFile, lostFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := held.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(held, "%d\n%s", os.Getpid(), strings.ReplaceAll(notes, "\n", " "))
	return err
}

// keep serves a host's streams until it is to end, and ends it.
func keep(ctx context.Context, dir string, host Host, ready func()) error {
	l, err := inFolder(dir, func(path string) (net.Listener, error) { return net.Listen("unix", filepath.Join(path, socketFile)) })
	if err != nil {
		return errors.Join(err, host.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveConn(ctx, conn, host, cancel) })
		}
	})
	ready()
	select {
	case <-ctx.Done():
	case <-host.Done():
	}
	lost := host.Err()
	err = host.Close()
	cancel()
	_ = l.Close()
	wg.Wait()
	return errors.Join(lost, err)
}

// serveConn serves one connection: a stream to the host, or the wish that it end, which is answered by this process's end.
func serveConn(ctx context.Context, conn net.Conn, host Host, end context.CancelFunc) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	want := make([]byte, 1)
	if _, err := io.ReadFull(conn, want); err != nil {
		return
	}
	switch want[0] {
	case wantEnd:
		end()
	case wantStream:
		stream, err := host.Stream()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(stream, conn)
			_ = stream.Close()
		}()
		_, _ = io.Copy(conn, stream)
	}
}

// inFolder calls f with a short path of a folder: a unix socket's path has 107 bytes at most.
func inFolder[T any](dir string, f func(path string) (T, error)) (T, error) {
	open, err := os.Open(dir)
	if err != nil {
		var none T
		return none, err
	}
	defer open.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d", open.Fd()))
}
