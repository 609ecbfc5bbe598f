package envd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/relay"
)

// dialTime bounds how long a port of this machine may take to accept.
const dialTime = 10 * time.Second

// PortProtocol is what a connection becomes by GET /ports/{port}.
const PortProtocol = "wrenn-port"

// loopbacks are where a server of this machine may listen that no other machine reaches, in the order in which they are tried.
var loopbacks = []string{"127.0.0.1", "::1"}

// port answers GET /ports/{port}: it joins the connection to a port that listens for this machine alone. 502 when none does. Once joined it is
// a connection like any other: in a clone it is cut.
func (s *Server) port(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	switch {
	case err != nil || port == 0:
		writeError(w, http.StatusBadRequest, "a port is 1 to 65535")
		return
	case port == Port:
		writeError(w, http.StatusForbidden, "envd's own port is not joined")
		return
	case r.Header.Get("Upgrade") != PortProtocol || r.ProtoMajor != 1:
		w.Header().Set("Upgrade", PortProtocol)
		writeError(w, http.StatusUpgradeRequired, "ask for the protocol "+PortProtocol+" over HTTP/1.1")
		return
	}
	server, err := dialLoopback(r.Context(), r.PathValue("port"))
	if err != nil {
		writeError(w, http.StatusBadGateway, fmt.Sprintf("port %d: %v", port, err))
		return
	}
	defer server.Close()
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer c.Close() // as it is known by
	if err := c.SetDeadline(time.Time{}); err != nil {
		return
	}
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", PortProtocol); err != nil {
		return // the host has left
	}
	caller := c
	if known, ok := c.(*conn); ok {
		caller = known.Conn // a socket: the kernel moves the bytes
	}
	relay.Join(caller, server)
}

func dialLoopback(ctx context.Context, port string) (server net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	for _, address := range loopbacks {
		if server, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, port)); err == nil {
			return server, nil
		}
	}
	return nil, err
}
