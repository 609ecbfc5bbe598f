//go:build hosttest

package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// TestUser runs commands as somebody else, which takes root.
func TestUser(t *testing.T) {
	m := newManager(t, nil)
	home := t.TempDir()
	for _, dir := range []string{home, filepath.Dir(home)} { // the test's own folders, which only its user may enter
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	somebody := user.User{Name: "somebody", UID: 54321, GID: 54322, Groups: []uint32{54323, 54324}, Home: home}
	s := shell(t, `id -u; id -g; id -G; echo "$USER $HOME"; pwd; grep -c '^CapEff:	0000000000000000' /proc/self/status`)
	s.User = somebody
	out, exit := collect(t, start(t, m, s))
	want := "54321\n54322\n54322 54323 54324\nsomebody " + home + "\n" + home + "\n1\n"
	if out[Stdout] != want || exit.Code != 0 {
		t.Errorf("got %q, %+v; want %q", out, exit, want)
	}

	s.Terminal, s.Args = &Size{Cols: 80, Rows: 24}, []string{"-c", `t=$(tty); stat -c %u "$t"; echo again >"$t"`}
	if out, exit := collect(t, start(t, m, s)); !strings.HasPrefix(out[Terminal], "54321\r\nagain") || exit.Code != 0 {
		t.Errorf("terminal: got %q, %+v", out, exit)
	}

	secret := filepath.Join(home, "secret")
	if err := os.Mkdir(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Terminal, s.Cwd = nil, secret
	if _, err := m.Start(s); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a folder of somebody else's: got %v", err)
	}
}
