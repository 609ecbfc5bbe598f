// Package envd is the agent inside a guest: it runs commands for who holds the sandbox's token, over HTTP/1.1 and unencrypted
// HTTP/2 on one port, as Connect, gRPC and gRPC-Web.
//
//	GET  /health              204, open to everybody: envd is there
//	POST /wake                open to everybody: see below
//	POST /quiesce             see below
//	GET  /ports/{port}        the connection becomes one to a port that listens for the guest itself alone
//	POST /process.Process/…   proto/envd/process
//	POST /filesystem.Filesystem/…   proto/envd/filesystem
//	GET, POST, PUT /files     package files
//
// Everything but /health and /wake asks for the token, in the header X-Access-Token; /files takes a signature made with it as well. It is the host's to give: until the host has
// given it every call fails with unavailable. No process of the guest gets it, and envd can't be traced or dumped by anybody but the
// guest's root.
//
// # Freeze and wake
//
// The host freezes the machine between these two calls. Processes are not touched by either.
//
// Quiesce closes the gate: envd forgets the token, and every call but /health and /wake fails with unavailable. 204 when that is
// done and no command is just being started. A second quiesce needs the token, which is forgotten, so it is unavailable too, as
// after a 204 whose answer was lost: who gets that may go on to wake. 503 with the reason when the machine can't be frozen.
//
// Wake makes envd read the metadata until there is a token, and opens the gate with it. If the metadata's start (mmds.KeyStart) is not
// the one that was applied last, this is a clone: before the gate opens, the machine is made distinct (package clone), new
// processes get the new ids, and all connections are closed but those that wait for this answer: their peers were another
// machine's. What followed a process on them joins it again by process.Process/Connect. The same start means
// that the machine was only held for a moment, and only the token is taken.
//
// Anybody may call wake, because all that it does is what the host has written into the metadata. It works once at a time; who calls
// meanwhile waits and gets the same answer: 200 with {"start", "reseeded", "clockOffsetMs", "steps": [{"name", "ms", "note"}]}, or
// 503 with the reason. Then the gate is as it was, or closed if this is a clone, and wake may be called again.
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

	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/envd/files"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
	"wrenn.dev/wrenn/internal/guest/mmds"
	"wrenn.dev/wrenn/proto/envd/filesystem/filesystempbconnect"
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
	// Machine is nil for one that can't be frozen.
	Machine Machine
	Users   user.DB
	Limits  process.Limits
	Log     *slog.Logger
	// TokenPatience replaces the minute that a wake waits for the token.
	TokenPatience time.Duration
}

// Server is one envd.
type Server struct {
	cfg     Config
	gate    *gate
	conns   *conns
	waker   *waker
	manager *process.Manager
	files   *filesystem.Manager
	handler http.Handler
}

// New returns a server that knows no token yet.
func New(cfg Config) *Server {
	s := &Server{gate: newGate(), conns: newConns(), manager: process.NewManager(cfg.Limits),
		files: filesystem.NewManager(cfg.Users, filesystem.DefaultLimits())}
	signed := &signatures{Source: cfg.Source, gate: s.gate}
	cfg.Source = signed
	s.cfg = cfg
	s.waker = newWaker(cfg, s.gate, s.conns)
	rpcs := http.NewServeMux()
	// Without compression: what a small message unpacks to is not known before, and the network is inside one machine.
	rpcs.Handle(processpbconnect.NewProcessHandler(
		&service{manager: s.manager, users: cfg.Users, base: s.waker.base, hold: s.gate.hold},
		connect.WithReadMaxBytes(maxMessage), connect.WithCompression("gzip", nil, nil)))
	rpcs.Handle(filesystempbconnect.NewFilesystemHandler(&filesService{files: s.files, users: cfg.Users},
		connect.WithReadMaxBytes(maxFilesMessage), connect.WithCompression("gzip", nil, nil)))
	rpcs.HandleFunc("POST /quiesce", signed.quiesced(s.waker.quiesce))
	rpcs.HandleFunc("GET /ports/{port}", s.port)
	rpcs.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is no %.200q", r.URL.Path))
	})
	all := http.NewServeMux()
	all.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	all.HandleFunc("POST /wake", s.waker.serve)
	content := signed.serve(files.New(cfg.Users, files.DefaultLimits()))
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
		all.Handle(method+" /files", content)
	}
	all.Handle("/", s.gate.guard(rpcs))
	s.handler = cors(all)
	return s
}

// Serve answers on the listener, and asks the source for the identity meanwhile, until ctx ends. Then it kills all processes,
// ends all streams and closes the listener.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := s.http()
	identified := make(chan struct{})
	go func() {
		defer close(identified)
		s.waker.boot(ctx)
	}()
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener{ln, s.conns}) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	cancel()
	s.waker.stop()
	s.manager.Close()
	s.files.Close()
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer stop()
	if h.Shutdown(end) != nil {
		_ = h.Close() // clients that take nothing
	}
	s.conns.cut(func(net.Conn) bool { return false }) // those that became something else are not the HTTP server's any more
	<-identified
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) http() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: s.handler, Protocols: protocols, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
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
		Source: FromMMDS(&mmds.Client{}), Machine: machine(log), Users: user.System(), Limits: process.DefaultLimits(), Log: log,
	}).Serve(ctx, ln)
}

// machine is the guest that envd runs in.
func machine(log *slog.Logger) Machine {
	m, err := clone.System(func(err error) { log.Warn("the clone's name", "error", err) })
	if err != nil {
		log.Error("this machine can't be frozen", "error", err)
		return fixed{err}
	}
	return m
}
