package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/sandbox"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const (
	// filesLimit is how fast a file goes through the agent, beside plain HTTP to the same guest.
	filesLimit = 0.8
	// fileBytes is the size of the file.
	fileBytes = 8 << 20
	// filePath is in the guest's memory: its disk is measured elsewhere.
	filePath = "/dev/shm/wrenn-bench"
)

// filesBench is an agent with one sandbox, and the plain way to that sandbox's envd.
type filesBench struct {
	agent *client.Client
	id    string
	plain *http.Client
	token string
	data  []byte
}

// filesThroughTheAgent measures the upload and the download of a file by a client of the agent, beside a client of HTTP alone that is
// connected to the same guest.
func filesThroughTheAgent(ctx context.Context, parts *assembly.Parts, runs int) (_ []figure, err error) {
	dir, err := os.MkdirTemp("", "wrenn-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := &filesBench{data: make([]byte, fileBytes)}
	_, _ = rand.Read(b.data)
	a, err := hostagent.Start(ctx, hostagent.Config{Manager: parts.Manager, StateDir: parts.StateDir, Log: slog.New(slog.DiscardHandler),
		Guest: func(dial sandbox.DialFunc, token string) hostagent.Guest {
			b.token = token
			b.plain = &http.Client{Transport: &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx, guest.Port)
			}}}
			return guest.New(guest.DialFunc(dial), token)
		}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cleanup.Do(ctx, a.Close)) }()
	stop, err := b.serve(ctx, a, filepath.Join(dir, "agent.sock"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	made, err := b.agent.Sandboxes.Create(ctx, connect.NewRequest(&pb.CreateRequest{Template: "base"}))
	if err != nil {
		return nil, err
	}
	b.id = made.Msg.GetSandbox().GetId()
	defer func() {
		err = errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { _, err := a.Destroy(ctx, b.id, "measured"); return err }))
	}()
	return b.compare(ctx, runs)
}

// serve has the agent answer on a socket.
func (b *filesBench) serve(ctx context.Context, a *hostagent.Agent, socket string) (stop func() error, err error) {
	l, err := rpc.Unix(socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(ctx, rpc.Handler(a), time.Second, l) }()
	b.agent = client.Unix(socket)
	return func() error {
		b.agent.Close()
		b.plain.CloseIdleConnections()
		cancel()
		return <-served
	}, nil
}

// compare measures in pairs.
func (b *filesBench) compare(ctx context.Context, runs int) ([]figure, error) {
	var figures []figure
	for _, way := range []struct {
		name        string
		ours, plain func(context.Context) error
	}{{"file upload", b.upload, b.uploadPlain}, {"file download", b.download, b.downloadPlain}} {
		var ours, plain []float64
		for i := range runs + 1 {
			p, err := rate(ctx, way.plain)
			if err != nil {
				return nil, fmt.Errorf("%s by HTTP: %w", way.name, err)
			}
			o, err := rate(ctx, way.ours)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			if i == 0 {
				continue // the first pair brings in what both need
			}
			fmt.Printf("%s %d of %d: agent %.1f MB/s, plain HTTP %.1f MB/s\n", way.name, i, runs, o, p)
			ours, plain = append(ours, o), append(plain, p)
		}
		f := pairs(way.name, filesLimit, ours, plain)
		f.Unit, f.Better = "MB/s", "higher"
		figures = append(figures, f.overlapping())
	}
	return figures, nil
}

// rate is how fast the file goes in one of the ways, in MB/s.
func rate(ctx context.Context, do func(context.Context) error) (float64, error) {
	began := time.Now()
	err := do(ctx)
	return fileBytes / 1e6 / time.Since(began).Seconds(), err
}

func (b *filesBench) upload(ctx context.Context) error {
	_, err := b.agent.WriteFile(ctx, &pb.WriteFileRequest_Start{Id: b.id, Path: filePath}, bytes.NewReader(b.data))
	return err
}

func (b *filesBench) download(ctx context.Context) error {
	n, err := b.agent.ReadFile(ctx, &pb.ReadFileRequest{Id: b.id, Path: filePath}, io.Discard)
	return complete(n, err)
}

func (b *filesBench) uploadPlain(ctx context.Context) error {
	_, err := b.request(ctx, http.MethodPost, bytes.NewReader(b.data))
	return err
}

func (b *filesBench) downloadPlain(ctx context.Context) error {
	return complete(b.request(ctx, http.MethodGet, nil))
}

// request asks envd itself, and returns how long its answer was.
func (b *filesBench) request(ctx context.Context, method string, body io.Reader) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envd/files?path="+filePath, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Access-Token", b.token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := b.plain.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("envd answers %s", resp.Status)
	}
	return io.Copy(io.Discard, resp.Body)
}

// complete says whether a download had all of the file.
func complete(n int64, err error) error {
	if err == nil && n != fileBytes {
		err = fmt.Errorf("%d of %d bytes", n, fileBytes)
	}
	return err
}
