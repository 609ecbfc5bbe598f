// Package relay joins two connections: what one side sends, the other gets, and how one side ends, the other learns.
//
//	relay.Join(caller, server)     // returns when both are closed
//
// Between TCP and unix sockets the kernel moves the bytes, and this process never has them.
//
// The two sides are not alike. A server that has said all is half closed to the caller, who may have more to say. A caller that ends is gone:
// callers never half close here, so that nothing is kept open for one that has left. And what breaks on one side is broken on the other, not
// ended: a body whose end is the connection's must not look whole.
//
// It is a leaf package.
package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Join copies both ways until the caller ends, or something breaks, and closes both. Who closes one of them meanwhile breaks the other.
func Join(caller, server net.Conn) {
	var answers sync.WaitGroup
	answers.Go(func() {
		_, err := io.Copy(caller, server)
		if err != nil {
			Break(caller)
			Break(server)
			return
		}
		closeWrite(caller)
	})
	switch _, err := io.Copy(server, caller); {
	case err == nil:
		_ = server.Close() // the caller has left: there is nobody to tell
	case errors.Is(err, net.ErrClosed):
		Break(caller)
		Break(server)
	default:
		// A server that takes no more may have said why, and that is still to be read.
		_ = server.SetReadDeadline(time.Now().Add(lastWords)) // fails when it is closed already
	}
	answers.Wait()
	_ = errors.Join(caller.Close(), server.Close()) // one of them is closed already
}

// lastWords is how long a server that takes no more is still listened to.
const lastWords = time.Second

// closeWrite says that nothing more comes. One that can't is closed.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it is gone already
		return
	}
	_ = c.Close()
}

// Break closes a connection so that its other end sees that it broke. On TCP, under TLS as well, that is a reset. A unix socket has none: its
// other end sees that this one takes nothing more either, which after Join's half close it does not.
func Break(c net.Conn) {
	under := c
	if secure, ok := c.(*tls.Conn); ok {
		under = secure.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails when it is closed already
	}
	_ = under.Close()
}
