package hostagent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/guest/envd/envdtest"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
)

// withFiles gives the world's guests the files of a real envd, which is reached by dial.
func (w *world) withFiles(dial func(g *envdtest.Guest) client.DialFunc) *envdtest.Guest {
	w.t.Helper()
	g := envdtest.Start(w.t)
	w.guest.files = client.New(dial(g), g.Token)
	w.t.Cleanup(w.guest.files.Close)
	return g
}

func plain(g *envdtest.Guest) client.DialFunc { return g.Dial }

// TestFilesAreActivity: the time that a sandbox may be idle does not run while somebody watches a folder of it.
func TestFilesAreActivity(t *testing.T) {
	w := newWorld(t)
	w.withFiles(plain)
	a := w.agent(quota.Amount{})
	info := w.create(a, hostagent.Spec{TTL: time.Hour})
	ctx, stop := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	err := a.WatchFiles(ctx, info.ID, "", ".", false, func() error {
		if got, err := a.Get(info.ID); err != nil || !got.ExpiresAt.IsZero() {
			t.Errorf("it is watched, and expires at %v: %v", got.ExpiresAt, err)
		}
		stop(enough)
		return nil
	}, func(client.Event) error { return nil })
	if !errors.Is(err, enough) {
		t.Errorf("the watch ends with %v", err)
	}
	if got, err := a.Get(info.ID); err != nil || !got.ExpiresAt.After(info.ExpiresAt) {
		t.Errorf("nobody watches, and it expires at %v, before at %v: %v", got.ExpiresAt, info.ExpiresAt, err)
	}
}

// TestAChangeGoesOnToItsEnd although its caller leaves in the middle of it; one whose caller has left does not begin.
func TestAChangeGoesOnToItsEnd(t *testing.T) {
	w := newWorld(t)
	ctx, leave := context.WithCancel(t.Context())
	g := w.withFiles(func(g *envdtest.Guest) client.DialFunc {
		return func(ctx context.Context, port int) (net.Conn, error) {
			leave() // the call is under way
			return g.Dial(ctx, port)
		}
	})
	for i := range 100 {
		if err := os.MkdirAll(filepath.Join(g.Home, "dir", fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := w.agent(quota.Amount{})
	id := w.create(a, hostagent.Spec{}).ID
	if err := a.RemoveFile(ctx, id, "", "dir"); err != nil {
		t.Errorf("the caller leaves: %v", err)
	}
	if _, err := os.Stat(filepath.Join(g.Home, "dir")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if err := a.MakeDir(ctx, id, "", "new"); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller has left: %v", err)
	}
	if _, err := a.StatFile(t.Context(), id, "", "new"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it has begun all the same: %v", err)
	}
}

// TestFilesOfNobody: no sandbox, and one that is paused.
func TestFilesOfNobody(t *testing.T) {
	w := newWorld(t)
	w.withFiles(plain)
	a := w.agent(quota.Amount{})
	if _, err := a.StatFile(t.Context(), "cl-0123456789abcdefghij", "", "."); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of no sandbox: %v", err)
	}
	id := w.create(a, hostagent.Spec{}).ID
	if _, _, err := a.Pause(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteFile(t.Context(), id, "", "f", nil, nil); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("of a paused one: %v", err)
	}
}
