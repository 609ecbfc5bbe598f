package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/errs/httpcode"
	"wrenn.dev/wrenn/internal/errs/rpccode"
)

// A port of a guest is reached by GET /ports/{sandbox}/{port} over HTTP/1.1 with PortProtocol as the protocol to upgrade to: after 101 the
// connection is the port's. Anything else is an error, see WritePortError.

// PortProtocol is what the connection becomes.
const PortProtocol = "wrenn-port"

// ErrPortClosed is the error of a port that nothing listens on. It is an ErrUnavailable.
var ErrPortClosed = fmt.Errorf("nothing listens on the port: %w", errs.ErrUnavailable)

const (
	codePortClosed = "port_closed"
	maxPortError   = 16 << 10 // bytes
)

// portError is an error's JSON, as Connect has it.
type portError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// WritePortError answers that a port can't be reached.
func WritePortError(w http.ResponseWriter, err error) {
	status, code := httpcode.Of(err)
	if errors.Is(err, syscall.ECONNREFUSED) {
		status, code = http.StatusBadGateway, codePortClosed
	}
	body, merr := json.Marshal(portError{code, err.Error()})
	if merr != nil {
		panic(merr) // strings alone
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}

// ReadPortError is the error that an answer tells of.
func ReadPortError(r io.Reader) error {
	var e portError
	if err := json.NewDecoder(io.LimitReader(r, maxPortError)).Decode(&e); err != nil {
		return fmt.Errorf("the agent's answer is none: %w: %w", err, errs.ErrUnavailable)
	}
	if e.Code == codePortClosed {
		return ErrPortClosed
	}
	var code connect.Code
	if code.UnmarshalText([]byte(e.Code)) != nil {
		code = connect.CodeUnknown
	}
	return &remote{kind: rpccode.Kind(code), text: e.Message}
}
