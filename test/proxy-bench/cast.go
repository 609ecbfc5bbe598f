package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"wrenn.dev/wrenn/internal/server"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/proxy"
	"wrenn.dev/wrenn/internal/server/store"
)

// sandbox is the one that all requests are for.
const sandbox = "cl-0123456789abcdefghij"

var domain = portname.Domain{Scheme: "http", Name: "localhost"}

// cast are the processes that take part.
type cast struct {
	ours, nginx string // addresses
	dir         string
	running     []*exec.Cmd
}

// start starts the server behind, and both proxies before it, each as a process of its own.
func start(ctx context.Context) (_ *cast, err error) {
	c := &cast{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "proxy-bench-"); err != nil {
		return nil, err
	}
	addresses := make([]string, 3)
	for i := range addresses {
		if addresses[i], err = free(); err != nil {
			return nil, err
		}
	}
	server := addresses[0]
	c.ours, c.nginx = addresses[1], addresses[2]
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(c.dir, "nginx.conf")
	if err := os.WriteFile(config, nginxConfig(c.dir, c.nginx, server), 0o600); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{self, roleFlag, "server", server}, {self, roleFlag, "proxy", c.ours, server}, {"nginx", "-c", config}} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		c.running = append(c.running, cmd)
	}
	for _, address := range addresses {
		if err := answers(address); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// stop ends the processes.
func (c *cast) stop() {
	for _, cmd := range c.running {
		_ = cmd.Process.Signal(syscall.SIGTERM) // or it has ended
		_ = cmd.Wait()                          // it was told to end
	}
	_ = os.RemoveAll(c.dir)
}

// free is an address that nobody listens on.
func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// answers waits until somebody listens.
func answers(address string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// nginxConfig is nginx as it is set up for this: it keeps connections to the server behind, and passes each piece on as it comes, as ours does.
func nginxConfig(dir, listen, server string) []byte {
	return fmt.Appendf(nil, `user root;
daemon off;
worker_processes auto;
pid %[1]s/pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  upstream behind { server %[3]s; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen %[2]s;
    keepalive_requests 1000000000;
    location / {
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
`, dir, listen, server)
}

// roleFlag has this program be one of the processes.
const roleFlag = "--role"

// play is one of the processes: "server ADDRESS", or "proxy ADDRESS SERVER".
func play(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "server":
		return http.ListenAndServe(args[1], http.HandlerFunc(content))
	case len(args) == 3 && args[0] == "proxy":
		debug.SetGCPercent(server.GCPercent) // as a server's process
		p := proxy.New(proxy.Config{Domain: domain, Sandboxes: one{args[2]}})
		return http.ListenAndServe(args[1], p.Handler(http.NotFoundHandler()))
	}
	return errors.New("no such role")
}

var piece = make([]byte, 256<<10)

// content answers with as many bytes as the path says.
func content(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Path[1:])
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		some, err := w.Write(piece[:min(n, len(piece))])
		if err != nil {
			return
		}
		n -= some
	}
}

// one is a sandbox that is the server at an address.
type one struct{ address string }

// Route implements proxy.Sandboxes.
func (one) Route(context.Context, string) (store.Route, error) {
	return store.Route{ID: sandbox, State: store.Running, Public: true}, nil
}

// Wake implements proxy.Sandboxes.
func (one) Wake(context.Context, string) error { return nil }

// Dial implements proxy.Sandboxes.
func (o one) Dial(ctx context.Context, _ store.Route, _ int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", o.address)
}
