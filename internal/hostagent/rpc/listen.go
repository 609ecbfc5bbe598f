package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// What a caller may take: a connection that says nothing or takes nothing is closed, so that it holds nothing for ever.
const (
	headerTime     = 10 * time.Second
	idleTime       = 2 * time.Minute
	pingTime       = 30 * time.Second
	maxHeaderBytes = 64 << 10
	maxStreams     = 1000
)

// Unix listens on a unix socket that its owner alone may connect to. A socket that an agent before this one left is replaced: that there
// is no other agent now is known by its lock.
func Unix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, errs.Field("--socket", path+" is there and no socket", "give another path")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// It gets its name only when its mode is right: nobody connects in between.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(tmp))
	}
	return l, nil
}

// TLS listens on TCP, for callers whose certificate one of the authorities in the file has signed: whoever may speak to an agent may do
// everything on its host.
func TLS(address, certFile, keyFile, clientCAFile string) (net.Listener, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, errs.Field("--tls-cert", err.Error(), "give the agent's certificate, and its key as --tls-key, in PEM")
	}
	pem, err := os.ReadFile(clientCAFile)
	if err != nil {
		return nil, errs.Field("--client-ca", err.Error(), "give the certificates, in PEM, that have signed those of callers")
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, errs.Field("--client-ca", clientCAFile+" holds no certificate", "give one in PEM")
	}
	return TCP(address, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: authorities,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}})
}

// TCP listens on TCP with TLS.
func TCP(address string, config *tls.Config) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errs.Field("--listen", err.Error(), "give an address that is free")
	}
	return tls.NewListener(l, config), nil
}

// What a connection's callers may send ahead of what is taken of it, all streams together and each of them: a file whose guest takes
// nothing leaves room for other calls.
const (
	connectionBytes = 4<<20 - 1 // HTTP/2's own bound in net/http
	streamBytes     = 512 << 10
)

// Serve answers on the listeners until ctx ends, then lets the calls under way end for as long as grace. It closes the listeners.
func Serve(ctx context.Context, handler http.Handler, grace time.Duration, listeners ...net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: handler, Protocols: protocols, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingTime, WriteByteTimeout: pingTime,
			MaxReceiveBufferPerConnection: connectionBytes, MaxReceiveBufferPerStream: streamBytes},
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- server.Serve(l) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(shut) != nil {
		_ = server.Close() // who still waits is told by the connection's end
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
