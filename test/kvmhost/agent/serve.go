package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"wrenn.dev/wrenn/test/kvmhost/layout"
	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// serve answers the heartbeat and runs commands, each on a virtio-serial port of its own. They need no network, so nothing
// that a test does to the network can cut them off. It returns only errors.
func serve() error {
	failed := make(chan error)
	go func() { failed <- answerHeartbeat() }()
	go func() { failed <- runCommands() }()
	return <-failed
}

// answerHeartbeat sends back each byte that comes. The interrupt that brings one also wakes a machine whose timer interrupt
// the emulation has lost.
func answerHeartbeat() error {
	port, err := openPort(layout.HeartbeatPort)
	if err != nil {
		return err
	}
	_, err = io.Copy(port, port)
	return fmt.Errorf("the heartbeat's port ended: %w", errors.Join(err, io.EOF))
}

func runCommands() error {
	port, err := openPort(layout.ControlPort)
	if err != nil {
		return err
	}
	err = new(remote.Server).Serve(context.Background(), remote.Conn(port))
	return fmt.Errorf("the port for commands ended: %w", errors.Join(err, io.EOF))
}

// openPort opens the virtio-serial port with a name once its other end is there.
func openPort(name string) (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		got, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(got)) == name {
			return openConnected("/dev/" + filepath.Base(filepath.Dir(file)))
		}
	}
	return nil, fmt.Errorf("there is no virtio-serial port named %s", name)
}

// openConnected opens a port. A port whose other end is not there yet reads as ended; the tool connects both before it
// starts the machine, so that passes.
func openConnected(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		connected, err := hasPeer(f)
		if err != nil || connected {
			return f, err
		}
		_ = f.Close()
		time.Sleep(20 * time.Millisecond)
	}
}
