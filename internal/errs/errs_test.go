package errs

import (
	"errors"
	"fmt"
	"testing"
)

func TestField(t *testing.T) {
	for _, c := range []struct{ field, problem, fix, want string }{
		{"--memory", `"4X" is not a size`, "give a number with its unit", `--memory: "4X" is not a size; give a number with its unit`},
		{"--memory", "it is wrong", "", "--memory: it is wrong"},
	} {
		err := Field(c.field, c.problem, c.fix)
		if err.Error() != c.want {
			t.Errorf("got %q, want %q", err, c.want)
		}
		wrapped := fmt.Errorf("run: %w", err)
		var field *FieldError
		if !errors.Is(wrapped, ErrInvalid) || !errors.As(wrapped, &field) || field.Field != c.field {
			t.Errorf("%v is no bad input at %s", wrapped, c.field)
		}
	}
}

// TestKindsDiffer: an error is of the kind that it wraps and of no other.
func TestKindsDiffer(t *testing.T) {
	kinds := []error{ErrInvalid, ErrNotFound, ErrAlreadyExists, ErrFailedPrecondition, ErrResourceExhausted, ErrUnavailable,
		ErrUnauthenticated, ErrPermissionDenied, ErrCorrupt}
	texts := map[string]bool{}
	for _, kind := range kinds {
		err := fmt.Errorf("x: %w", kind)
		for _, other := range kinds {
			if errors.Is(err, other) != (kind == other) {
				t.Errorf("is %q a %q?", err, other)
			}
		}
		texts[kind.Error()] = true
	}
	if len(texts) != len(kinds) {
		t.Errorf("%d kinds have %d texts", len(kinds), len(texts))
	}
}
