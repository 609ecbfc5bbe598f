// Package httpcode is the one place where kinds of error become statuses of HTTP.
package httpcode

import (
	"net/http"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs/rpccode"
)

// statusClientClosed is nginx's word for a caller who has left. Nobody reads it but the log.
const statusClientClosed = 499

var statuses = map[connect.Code]int{
	connect.CodeInvalidArgument:    http.StatusBadRequest,
	connect.CodeUnauthenticated:    http.StatusUnauthorized,
	connect.CodePermissionDenied:   http.StatusForbidden,
	connect.CodeNotFound:           http.StatusNotFound,
	connect.CodeAlreadyExists:      http.StatusConflict,
	connect.CodeFailedPrecondition: http.StatusConflict,
	connect.CodeResourceExhausted:  http.StatusTooManyRequests,
	connect.CodeCanceled:           statusClientClosed,
	connect.CodeUnavailable:        http.StatusServiceUnavailable,
	connect.CodeDeadlineExceeded:   http.StatusGatewayTimeout,
	connect.CodeDataLoss:           http.StatusInternalServerError,
	connect.CodeInternal:           http.StatusInternalServerError,
}

// Of is the status of an error's outermost kind and the kind's name, which is the same over RPC.
func Of(err error) (status int, code string) {
	c := rpccode.Of(err)
	return statuses[c], c.String()
}
