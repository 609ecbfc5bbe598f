package envd

import (
	"errors"
	"io/fs"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs/rpccode"
)

// toConnect gives an error its code. What a user of the guest may not do has no kind of ours: the caller may.
func toConnect(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	code := rpccode.Of(err)
	if code == connect.CodeInternal && errors.Is(err, fs.ErrPermission) {
		code = connect.CodePermissionDenied
	}
	return connect.NewError(code, err)
}
