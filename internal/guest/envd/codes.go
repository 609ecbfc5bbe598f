package envd

import (
	"context"
	"errors"
	"io/fs"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
)

// toConnect is the one place where kinds of error become codes of the protocol.
func toConnect(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	return connect.NewError(code(err), err)
}

func code(err error) connect.Code {
	for _, c := range []struct {
		kind error
		code connect.Code
	}{
		{errs.ErrInvalid, connect.CodeInvalidArgument},
		{errs.ErrNotFound, connect.CodeNotFound},
		{errs.ErrAlreadyExists, connect.CodeAlreadyExists},
		{errs.ErrFailedPrecondition, connect.CodeFailedPrecondition},
		{errs.ErrResourceExhausted, connect.CodeResourceExhausted},
		{errs.ErrUnavailable, connect.CodeUnavailable},
		{errs.ErrUnauthenticated, connect.CodeUnauthenticated},
		{errs.ErrCorrupt, connect.CodeDataLoss},
		{fs.ErrPermission, connect.CodePermissionDenied}, // what a user of the guest may not do, not the caller
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{context.Canceled, connect.CodeCanceled},
	} {
		if errors.Is(err, c.kind) {
			return c.code
		}
	}
	return connect.CodeInternal
}
