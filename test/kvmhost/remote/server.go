package remote

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Server runs the commands of Clients on this machine. The zero value is ready.
type Server struct {
	once   sync.Once
	config *ssh.ServerConfig
	err    error
}

// Serve answers the client at the other end of conn until it goes or ctx ends. Commands still running then are killed.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	s.once.Do(s.init)
	if s.err != nil {
		return s.err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	c, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return fmt.Errorf("greet the client: %w", err)
	}
	go ssh.DiscardRequests(requests)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for open := range channels {
		wg.Go(func() { s.channel(ctx, open) })
	}
	cancel()
	wg.Wait()
	_ = c.Wait()
	return nil
}

func (s *Server) init() {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.err = err
		return
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		s.err = err
		return
	}
	s.config = &ssh.ServerConfig{NoClientAuth: true}
	s.config.AddHostKey(signer)
}

// channel serves one channel to its end.
func (s *Server) channel(ctx context.Context, open ssh.NewChannel) {
	switch open.ChannelType() {
	case "session":
		if ch, requests, err := open.Accept(); err == nil {
			runSession(ctx, ch, requests)
		}
	case streamChannel:
		if ch, requests, err := open.Accept(); err == nil {
			go ssh.DiscardRequests(requests)
			_ = s.Serve(ctx, Conn(ch))
		}
	default:
		_ = open.Reject(ssh.UnknownChannelType, "no such channel type")
	}
}

// Conn makes a net.Conn of a stream that has neither addresses nor deadlines.
func Conn(rwc io.ReadWriteCloser) net.Conn { return streamConn{rwc} }

type streamConn struct{ io.ReadWriteCloser }

type streamAddr struct{}

func (streamAddr) Network() string { return "stream" }
func (streamAddr) String() string  { return "stream" }

func (streamConn) LocalAddr() net.Addr              { return streamAddr{} }
func (streamConn) RemoteAddr() net.Addr             { return streamAddr{} }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }
