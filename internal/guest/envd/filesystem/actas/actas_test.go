package actas

import (
	"errors"
	"os"
	"testing"

	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAsOneself: everybody can act as himself, and gets what f returns.
func TestAsOneself(t *testing.T) {
	self := user.User{Name: "self", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	want := errors.New("of f")
	if err := Run(self, func() error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	defer func() {
		if got := recover(); got != "of f" {
			t.Errorf("got the panic %v", got)
		}
	}()
	_ = Run(self, func() error { panic("of f") })
}

// TestAsAnother: root can act as anybody, and nobody else can.
func TestAsAnother(t *testing.T) {
	ran := false
	err := Run(user.User{Name: "another", UID: 54321, GID: 54322}, func() error {
		ran = true
		return nil
	})
	if root := os.Geteuid() == 0; ran != root || errors.Is(err, errs.ErrFailedPrecondition) == root {
		t.Errorf("it ran: %v, %v", ran, err)
	}
}
