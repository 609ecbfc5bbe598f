// Package envd is the agent inside a guest: it runs commands for who holds the sandbox's token, over HTTP/1.1 and unencrypted
// HTTP/2 on one port, as Connect, gRPC and gRPC-Web.
//
//	GET  /health              204, open to everybody: envd is there
//	POST /process.Process/…   proto/envd/process
//
// Everything but /health asks for the token, in the header X-Access-Token. It is the host's to give: until the host has given it
// every call fails with unavailable. The token is kept in memory alone; no process of the guest gets it, and envd can't be
// traced or dumped by anybody but the guest's root.
package envd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
	"wrenn.dev/wrenn/internal/guest/mmds"
	"wrenn.dev/wrenn/proto/envd/process/processpbconnect"
)

// Port is where envd listens.
const Port = 49983

const (
	maxMessage     = 8 << 20 // bytes of one request message
	maxHeaderBytes = 32 << 10
	headerTime     = time.Minute
	idleTime       = 10 * time.Minute
	endTime        = 5 * time.Second // for streams to end after their processes were killed
)

// Config is what a Server works with.
type Config struct {
	Source Source
	Users  user.DB
	Limits process.Limits
	Log    *slog.Logger
}

// Server is one envd.
type Server struct {
	cfg     Config
	gate    *gate
	manager *process.Manager
	handler http.Handler
}

// New returns a server that knows no token yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, gate: newGate(), manager: process.NewManager(cfg.Limits)}
	rpcs := http.NewServeMux()
	// Without compression: what a small message unpacks to is not known before, and the network is inside one machine.
	rpcs.Handle(processpbconnect.NewProcessHandler(
		&service{manager: s.manager, users: cfg.Users, base: s.base},
		connect.WithReadMaxBytes(maxMessage), connect.WithCompression("gzip", nil, nil)))
	rpcs.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is no %.200q", r.URL.Path))
	})
	all := http.NewServeMux()
	all.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	all.Handle("/", s.gate.guard(rpcs))
	s.handler = all
	return s
}

func (s *Server) base() map[string]string { return s.gate.identity.Load().env() }

// Serve answers on the listener, and asks the source for the identity meanwhile, until ctx ends. Then it kills all processes,
// ends all streams and closes the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Handler: s.handler, Protocols: protocols, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	identified := make(chan struct{})
	go func() {
		defer close(identified)
		s.identify(ctx)
	}()
	served := make(chan error, 1)
	go func() { served <- h.Serve(ln) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	cancel()
	s.manager.Close()
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer stop()
	if h.Shutdown(end) != nil {
		_ = h.Close() // clients that take nothing
	}
	<-identified
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) identify(ctx context.Context) {
	id, err := s.cfg.Source.Identity(ctx)
	if err != nil {
		s.cfg.Log.Error("no identity, so every call is refused", "error", err)
		return
	}
	s.gate.open(id)
	s.cfg.Log.Info("ready", "sandbox", id.SandboxID, "template", id.TemplateID)
}

// Run is envd in a guest: on its port, with the guest's users, and the host's metadata service as the source.
func Run(ctx context.Context, log *slog.Logger) error {
	// Nobody but root may read this process's memory, where the token is.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make envd not dumpable: %w", err)
	}
	// Files that whoever started envd left open are not for its processes.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited files on exec: %w", err)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", Port))
	if err != nil {
		return err
	}
	return New(Config{
		Source: FromMMDS(&mmds.Client{}), Users: user.System(), Limits: process.DefaultLimits(), Log: log,
	}).Serve(ctx, ln)
}
