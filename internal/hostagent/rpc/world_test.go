package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/guest/envd/envdtest"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an agent on a host in memory, behind a real socket and a real TCP port.
type world struct {
	*sandboxtest.Host
	*client.Client
	t       *testing.T
	agent   *hostagent.Agent
	socket  string
	address string
	certs   certs
	guest   *shell
	files   *envdtest.Guest
}

func newWorld(t *testing.T, limits quota.Amount) *world {
	t.Helper()
	w := &world{Host: sandboxtest.NewHost(t), t: t, guest: &shell{signals: make(chan syscall.Signal, 1), sizes: make(chan guest.Size, 1)}, files: envdtest.Start(t)}
	w.guest.Client = guest.New(w.files.Dial, w.files.Token)
	var err error
	w.agent, err = hostagent.Start(context.Background(), hostagent.Config{Manager: w.Manager(t), StateDir: w.StateDir, Limits: limits,
		Log: slog.New(slog.DiscardHandler), Guest: func(sandbox.DialFunc, string) hostagent.Guest { return w.guest }})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w.socket, w.certs = filepath.Join(dir, "agent.sock"), makeCerts(t, dir)
	unix, err := rpc.Unix(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := rpc.TLS("127.0.0.1:0", w.certs.agent, w.certs.agentKey, w.certs.authority)
	if err != nil {
		t.Fatal(err)
	}
	w.address = tcp.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(ctx, rpc.Handler(w.agent), time.Second, unix, tcp) }()
	w.Client = client.Unix(w.socket)
	t.Cleanup(func() {
		w.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.agent.Close(closing); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) create() string {
	w.t.Helper()
	resp, err := w.Sandboxes.Create(w.t.Context(), connect.NewRequest(&pb.CreateRequest{Template: "base"}))
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.Msg.GetSandbox().GetId()
}

// shell is a guest with one command, which says what it was given, on both outputs, until its input ends; and with the files of a real
// envd.
type shell struct {
	*guest.Client
	signals chan syscall.Signal // for who runs
	sizes   chan guest.Size
	wrote   atomic.Int64 // by the command "flood"
	mu      sync.Mutex
	killed  []error // why each command was left
}

func (g *shell) Run(ctx context.Context, cmd guest.Command) (guest.Result, error) {
	cmd.Started(7)
	if cmd.Cmd == "flood" {
		for ctx.Err() == nil {
			n, err := cmd.Stdout.Write(make([]byte, 32<<10))
			if err != nil {
				return guest.Result{}, err
			}
			g.wrote.Add(int64(n))
		}
		g.left(context.Cause(ctx))
		return guest.Result{}, context.Cause(ctx)
	}
	if cmd.Stdin == nil {
		select {
		case sig := <-g.signals:
			return guest.Result{ExitCode: -1, Signal: sig, Status: "signal: " + sig.String()}, nil
		case size := <-g.sizes:
			return guest.Result{ExitCode: int(size.Cols)}, nil
		case <-ctx.Done():
			g.left(context.Cause(ctx))
			return guest.Result{}, context.Cause(ctx)
		}
	}
	_, err := io.Copy(io.MultiWriter(cmd.Stdout, cmd.Stderr), cmd.Stdin)
	return guest.Result{ExitCode: 3, Status: "exit status 3"}, err
}

func (g *shell) left(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.killed = append(g.killed, why)
}

func (g *shell) Signal(_ context.Context, _ uint32, sig syscall.Signal) error {
	g.signals <- sig
	return nil
}

func (g *shell) Resize(_ context.Context, _ uint32, size guest.Size) error {
	g.sizes <- size
	return nil
}

func (g *shell) Attach(ctx context.Context, _ uint32, cmd guest.Command) (guest.Result, error) {
	return g.Run(ctx, cmd)
}

func (g *shell) List(context.Context) ([]guest.Process, error) {
	return []guest.Process{{PID: 7, Cmd: "sleep", Args: []string{"9"}}}, nil
}

// certs are files: an authority, what it signed for the agent and for a caller, and what another one signed.
type certs struct {
	authority, agent, agentKey string
	pool                       *x509.CertPool
	caller, stranger           tls.Certificate
}

func makeCerts(t *testing.T, dir string) certs {
	t.Helper()
	ca, caKey := sign(t, "authority", nil, nil)
	other, otherKey := sign(t, "another authority", nil, nil)
	agent, agentKey := sign(t, "agent", ca, caKey)
	c := certs{authority: filepath.Join(dir, "ca.pem"), agent: filepath.Join(dir, "agent.pem"), agentKey: filepath.Join(dir, "agent.key"),
		pool: x509.NewCertPool()}
	c.pool.AddCert(ca)
	der, err := x509.MarshalECPrivateKey(agentKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{c.authority: {Type: "CERTIFICATE", Bytes: ca.Raw},
		c.agent: {Type: "CERTIFICATE", Bytes: agent.Raw}, c.agentKey: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for to, by := range map[*tls.Certificate]struct {
		ca  *x509.Certificate
		key *ecdsa.PrivateKey
	}{&c.caller: {ca, caKey}, &c.stranger: {other, otherKey}} {
		cert, key := sign(t, "caller", by.ca, by.key)
		*to = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	return c
}

// sign makes a certificate, signed by another one or by itself.
func sign(t *testing.T, name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if by == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		by, byKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
