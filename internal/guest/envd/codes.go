package envd

import (
	"errors"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs/rpccode"
)

// toConnect gives an error its code.
func toConnect(err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	return connect.NewError(rpccode.Of(err), err)
}
