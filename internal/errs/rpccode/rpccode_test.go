package rpccode

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
)

func TestKindsSurvive(t *testing.T) {
	for _, k := range kinds {
		if got := Kind(Of(fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", k.kind)))); got != k.kind {
			t.Errorf("%v became %v", k.kind, got)
		}
	}
	if got := Of(errors.New("odd")); got != connect.CodeInternal || Kind(got) != nil {
		t.Errorf("an error without a kind is %v, %v", got, Kind(got))
	}
	if Of(nil) != 0 || Kind(0) != nil {
		t.Error("no error became one")
	}
}

func TestTheOutermostKindCounts(t *testing.T) {
	inner := fmt.Errorf("machine: %w", errs.ErrNotFound)
	for err, want := range map[error]connect.Code{
		fmt.Errorf("it has ended: %w: %w", inner, errs.ErrUnavailable):            connect.CodeUnavailable,
		errors.Join(fmt.Errorf("a: %w", errs.ErrCorrupt), context.Canceled):       connect.CodeCanceled,
		fmt.Errorf("%w (%w)", errs.ErrFailedPrecondition, errs.Field("", "", "")): connect.CodeFailedPrecondition,
	} {
		if got := Of(err); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
}
