package httpcode

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestOf(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		errs.Field("a", "b", "c"):  {400, "invalid_argument"},
		errs.ErrUnauthenticated:    {401, "unauthenticated"},
		errs.ErrPermissionDenied:   {403, "permission_denied"},
		errs.ErrNotFound:           {404, "not_found"},
		errs.ErrAlreadyExists:      {409, "already_exists"},
		errs.ErrFailedPrecondition: {409, "failed_precondition"},
		errs.ErrResourceExhausted:  {429, "resource_exhausted"},
		context.Canceled:           {499, "canceled"},
		errs.ErrCorrupt:            {500, "data_loss"},
		errors.New("odd"):          {500, "internal"},
		errs.ErrUnavailable:        {503, "unavailable"},
		context.DeadlineExceeded:   {504, "deadline_exceeded"},
	} {
		if status, code := Of(fmt.Errorf("x: %w", err)); status != want.status || code != want.code {
			t.Errorf("%v is %d %s, want %d %s", err, status, code, want.status, want.code)
		}
	}
}
