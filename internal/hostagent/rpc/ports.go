package rpc

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/wire"
	"wrenn.dev/wrenn/internal/relay"
)

// portTime bounds how long a guest may take to accept a connection.
const portTime = 10 * time.Second

// ports joins a caller's connection to a port of a guest, as package wire says. It is no RPC, because an RPC's messages would have to be made and
// read here for every piece: so the kernel moves the bytes.
func ports(a *hostagent.Agent) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
		switch {
		case err != nil || port == 0:
			wire.WritePortError(w, errs.Field("port", fmt.Sprintf("%.20q is none", r.PathValue("port")), "give 1 to 65535"))
			return
		case r.Header.Get("Upgrade") != wire.PortProtocol || r.ProtoMajor != 1:
			wire.WritePortError(w, errs.Field("Upgrade", "the connection can't become a port's", "ask for "+wire.PortProtocol+" over HTTP/1.1"))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), portTime)
		defer cancel()
		server, err := a.Dial(ctx, r.PathValue("sandbox"), int(port))
		if err != nil {
			wire.WritePortError(w, err)
			return
		}
		defer server.Close()
		caller, _, err := http.NewResponseController(w).Hijack() // who speaks before the 101 breaks the protocol, and is not listened to
		if err != nil {
			wire.WritePortError(w, err)
			return
		}
		defer caller.Close()
		if err := caller.SetDeadline(time.Time{}); err != nil {
			return
		}
		if _, err := fmt.Fprintf(caller, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.PortProtocol); err != nil {
			return // the caller has left
		}
		relay.Join(caller, server.Conn)
	})
}
