package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/member"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/pki"
)

// agentFlags are what `wrenn agent` takes.
type agentFlags struct {
	socket, listen, metricsListen string
	tlsCert, tlsKey, clientCA     string
	join, server, advertise       string
	maxSandboxes, maxVCPUs        int
	maxMemory, maxDisk            string
	warmSlots                     int
	logFormat                     string
	destroyOnExit                 bool
}

// defaultWarmSlots is enough for starts that come one after the other; most of a burst finds none ready.
const defaultWarmSlots = 4

// defaultHostListen is where an agent that has joined a server listens for it.
const defaultHostListen = ":7443"

// defaultSocket is where an agent listens.
const defaultSocket = "/run/wrenn/agent.sock"

func newAgent(s streams, host *hostFlags) *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run this machine's sandboxes as a daemon",
		Long: `Agent serves hostagent.v1 (proto/hostagent/v1, over Connect) on a unix socket, and on TCP for callers with a certificate that
--client-ca has signed: whoever may speak to it may do everything with this machine's sandboxes.

It takes over all sandboxes that run, and its end leaves them running: it may be restarted or upgraded under them, or be killed.
Those that were running when the machine went down are 'lost', with the reason; paused ones are paused.

With --join it becomes a host of the server that made the token (POST /v1/hosts/tokens): it makes a key of its own, and from then on the server's
installation alone may speak to it over TCP, by certificates that are renewed by themselves. A token is good once; an agent that is started
again is a host as before, with it or without. When the server does not answer, its sandboxes run on.

The limits are refused before anything is made: --max-sandboxes, --max-vcpus and --max-memory count the sandboxes that have a
machine, --max-disk the paused ones as well, each with the size of its disk and of its memory, which is on the disk while it is paused,
and what snapshots and the templates' warm builds take.

SIGTERM and Ctrl-C stop it: operations under way are brought to their end first.`,
		Example: `  wrenn agent --max-memory 48G --max-disk 500G
  wrenn agent --join "$TOKEN" --max-memory 48G
  wrenn agent --listen :7443 --tls-cert agent.pem --tls-key agent.key --client-ca ca.pem
  wrenn agent status`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), s, host, &f) },
	}
	f.register(cmd)
	cmd.AddCommand(newAgentStatus(s))
	return cmd
}

func (f *agentFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.socket, "socket", env("WRENN_AGENT_SOCKET", defaultSocket), "unix socket to listen on; root alone may connect ($WRENN_AGENT_SOCKET)")
	fl.StringVar(&f.join, "join", env("WRENN_JOIN_TOKEN", ""), "token by which this machine becomes a server's host ($WRENN_JOIN_TOKEN)")
	fl.StringVar(&f.server, "server", "", "where that server takes hosts, host:port, if not where the token says")
	fl.StringVar(&f.advertise, "advertise", "", "where the server finds this agent, host:port (default: the address that it comes from, and the port of --listen)")
	fl.StringVar(&f.listen, "listen", "", "TCP address to listen on as well (default with --join: "+defaultHostListen+"); without it needs the three files below")
	fl.StringVar(&f.tlsCert, "tls-cert", "", "the agent's certificate, PEM")
	fl.StringVar(&f.tlsKey, "tls-key", "", "its key, PEM")
	fl.StringVar(&f.clientCA, "client-ca", "", "certificates that have signed those of callers, PEM")
	fl.StringVar(&f.metricsListen, "metrics-listen", "", "TCP address to serve /metrics on, without TLS, such as 127.0.0.1:9443 (they are on the socket as well)")
	f.registerLimits(fl)
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json, on standard error")
	fl.BoolVar(&f.destroyOnExit, "destroy-on-exit", false, "destroy all sandboxes when it is told to stop")
}

// registerLimits has the flags that limits reads.
func (f *agentFlags) registerLimits(fl *pflag.FlagSet) {
	fl.IntVar(&f.maxSandboxes, "max-sandboxes", 0, "most sandboxes that run at once (default: no limit)")
	fl.IntVar(&f.maxVCPUs, "max-vcpus", 0, "most virtual CPUs of all together (default: no limit)")
	fl.StringVar(&f.maxMemory, "max-memory", "", "most memory of all together, such as 48G (default: nine tenths of the machine's)")
	fl.StringVar(&f.maxDisk, "max-disk", "", "most disk of all together, paused ones and snapshots included, such as 500G (default: no limit)")
	fl.IntVar(&f.warmSlots, "warm-slots", defaultWarmSlots, "network slots that are kept ready for sandboxes to come")
}

// limits turns the flags into what all sandboxes may take.
func (f *agentFlags) limits() (quota.Amount, error) {
	for flag, n := range map[string]int{"--max-sandboxes": f.maxSandboxes, "--max-vcpus": f.maxVCPUs, "--warm-slots": f.warmSlots} {
		if n < 0 {
			return quota.Amount{}, errs.Field(flag, fmt.Sprintf("%d is out of range", n), "give 1 or more, or leave it out")
		}
	}
	memory, err := parseSize("--max-memory", f.maxMemory)
	if err != nil {
		return quota.Amount{}, err
	}
	disk, err := parseSize("--max-disk", f.maxDisk)
	if err != nil {
		return quota.Amount{}, err
	}
	if memory == 0 {
		var info syscall.Sysinfo_t
		if err := syscall.Sysinfo(&info); err != nil {
			return quota.Amount{}, err
		}
		memory = int64(info.Totalram) * int64(info.Unit) / 10 * 9
	}
	return quota.Amount{Sandboxes: f.maxSandboxes, VCPUs: f.maxVCPUs, MemoryMiB: memory >> 20, DiskBytes: disk}, nil
}

// logger writes the operations' lines.
func (f *agentFlags) logger(w io.Writer) (*slog.Logger, error) {
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, errs.Field("--log-format", fmt.Sprintf("%q is none", f.logFormat), "give text or json")
}

// listeners opens the socket and, if asked for, the TCP port; first the one, if there is one, on which a server finds this host.
func (f *agentFlags) listeners(m *member.Member) (_ []net.Listener, err error) {
	var list []net.Listener
	defer func() {
		if err != nil {
			for _, l := range list {
				_ = l.Close()
			}
		}
	}()
	if err := os.MkdirAll(filepath.Dir(f.socket), 0o755); err != nil {
		return nil, errs.Field("--socket", err.Error(), "give a path in a folder that can be made")
	}
	if m != nil {
		l, err := rpc.TCP(cmp.Or(f.listen, defaultHostListen), m.TLS())
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	} else if f.listen != "" {
		for _, file := range []struct{ flag, value string }{{"--tls-cert", f.tlsCert}, {"--tls-key", f.tlsKey}, {"--client-ca", f.clientCA}} {
			if file.value == "" {
				return nil, errs.Field(file.flag, "--listen is given without it", "give it, or leave --listen out")
			}
		}
		l, err := rpc.TLS(f.listen, f.tlsCert, f.tlsKey, f.clientCA)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	l, err := rpc.Unix(f.socket)
	if err != nil {
		return list, err
	}
	return append(list, l), nil
}

const (
	// callGrace is how long calls may take to end once the agent is told to stop: they end by themselves, except slow readers'.
	callGrace = 5 * time.Second
	// stopTime bounds how long operations under way are waited for. The next agent brings to an end what is cut off.
	stopTime = 10 * time.Minute
)

func runAgent(ctx context.Context, s streams, host *hostFlags, f *agentFlags) error {
	limits, err := f.limits()
	if err != nil {
		return err
	}
	log, err := f.logger(s.err)
	if err != nil {
		return err
	}
	parts, err := host.ready()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	a, err := hostagent.Start(ctx, hostagent.Config{Manager: parts.Manager, StateDir: parts.StateDir, Limits: limits, WarmSlots: f.warmSlots, Log: log})
	if err != nil {
		return err
	}
	m, err := f.member(ctx, parts.StateDir, log) // with the lock that the agent has
	if err == nil {
		err = f.serve(ctx, a, m, log)
	}
	closing, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if f.destroyOnExit && ctx.Err() != nil {
		err = errors.Join(err, a.DestroyAll(closing, "the agent stops, and was told to leave none"))
	}
	return errors.Join(err, a.Close(closing))
}

// member is this machine as a server's host, nil when it is none.
func (f *agentFlags) member(ctx context.Context, stateDir string, log *slog.Logger) (*member.Member, error) {
	cfg := member.Config{Dir: filepath.Join(stateDir, "agent"), Log: log}
	for _, a := range []struct{ flag, address string }{{"--server", f.server}, {"--advertise", f.advertise}} {
		if a.address == "" {
			continue
		}
		if err := pki.CheckAddress(a.flag, a.address); err != nil {
			return nil, err
		}
	}
	var m *member.Member
	var err error
	if f.join == "" {
		m, err = member.Open(cfg)
		if errors.Is(err, errs.ErrNotFound) {
			return nil, nil
		}
	} else {
		var t pki.Token
		if t, err = pki.ParseToken(f.join); err == nil {
			m, err = member.Join(ctx, cfg, t, f.server)
		}
	}
	if err == nil && f.tlsCert+f.tlsKey+f.clientCA != "" {
		err = errs.Field("--tls-cert", "this machine is a server's host, which listens with the certificate that it got", "leave --tls-cert, --tls-key and --client-ca out")
	}
	return m, err
}

// belong keeps this machine the server's host until ctx ends.
func (f *agentFlags) belong(ctx context.Context, a *hostagent.Agent, m *member.Member, l net.Listener) {
	defer m.Close()
	address := f.advertise
	if address == "" {
		host, port, err := net.SplitHostPort(l.Addr().String())
		if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
			host = ""
		}
		address = net.JoinHostPort(host, port)
	}
	m.Run(ctx, member.Reporter(a, address))
}

// serve answers until ctx ends.
func (f *agentFlags) serve(ctx context.Context, a *hostagent.Agent, m *member.Member, log *slog.Logger) error {
	listeners, err := f.listeners(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if m != nil {
		log.Info("this machine is a server's host", "host", m.Host(), "listen", listeners[0].Addr().String())
		var belongs sync.WaitGroup
		defer belongs.Wait()
		defer cancel()
		belongs.Go(func() { f.belong(ctx, a, m, listeners[0]) })
	}
	metrics := make(chan error, 1)
	if f.metricsListen != "" {
		l, err := net.Listen("tcp", f.metricsListen)
		if err != nil {
			return errs.Field("--metrics-listen", err.Error(), "give an address that is free")
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", rpc.Metrics(a))
		go func() { metrics <- rpc.Serve(ctx, mux, callGrace, l) }()
	} else {
		metrics <- nil
	}
	log.Info("serving", "socket", f.socket, "listen", f.listen, "metrics", f.metricsListen)
	ready(log)
	err = rpc.Serve(ctx, rpc.Handler(a), callGrace, listeners...)
	cancel()
	return errors.Join(err, <-metrics)
}

// ready tells systemd, if it started this, that calls are answered.
func ready(log *slog.Logger) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte("READY=1"))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		log.Warn("systemd was not told that the agent is ready", "error", err)
	}
}
