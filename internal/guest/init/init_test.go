package guestinit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/mmds"
)

func TestResolvConf(t *testing.T) {
	for _, tc := range []struct {
		servers, want string
		err           error
	}{
		{"1.1.1.1", "nameserver 1.1.1.1\n", nil},
		{"9.9.9.9, 2620:fe::fe", "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n", nil},
		{"dns.example", "", errs.ErrInvalid},
		{"1.1.1.1,", "", errs.ErrInvalid},
		{"1.1.1.1\noptions x", "", errs.ErrInvalid},
	} {
		got, err := resolvConf(tc.servers)
		if string(got) != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("resolvConf(%q) = %q, %v", tc.servers, got, err)
		}
	}
}

func TestHasServer(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "# nameserver 1.1.1.1\n": false, "search x\n": false, "nameserver\n": false,
		"search x\n\tnameserver 10.0.0.1": true, "nameserver 1.1.1.1\n": true,
	} {
		if got := hasServer([]byte(text)); got != want {
			t.Errorf("hasServer(%q) = %v", text, got)
		}
	}
}

func TestHosts(t *testing.T) {
	const local = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, tc := range []struct{ old, want string }{
		{"", local + "127.0.1.1 box\n"},
		{"127.0.0.1\tlocalhost\n127.0.1.1 old", "127.0.0.1\tlocalhost\n127.0.1.1 box\n"},
		{"10.0.0.1 db", "10.0.0.1 db\n" + local + "127.0.1.1 box\n"},
		{local + "127.0.1.1 box\n", local + "127.0.1.1 box\n"},
	} {
		if got := string(hosts([]byte(tc.old), "box")); got != tc.want {
			t.Errorf("hosts(%q) = %q, want %q", tc.old, got, tc.want)
		}
	}
}

func TestUpdate(t *testing.T) {
	servers := func(old []byte) []byte {
		if hasServer(old) {
			return old
		}
		return []byte("nameserver 1.1.1.1\n")
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T, dir, path string)
		want string
	}{
		{"missing", func(*testing.T, string, string) {}, "nameserver 1.1.1.1\n"},
		{"empty", func(t *testing.T, _, path string) { write(t, path, "") }, "nameserver 1.1.1.1\n"},
		{"own", func(t *testing.T, _, path string) { write(t, path, "nameserver 9.9.9.9\n") }, "nameserver 9.9.9.9\n"},
		{"dangling link", func(t *testing.T, dir, path string) { link(t, "../run/none", path) }, "nameserver 1.1.1.1\n"},
		{"link", func(t *testing.T, dir, path string) {
			write(t, filepath.Join(dir, "target"), "nameserver 8.8.4.4\n")
			link(t, "target", path)
		}, "nameserver 8.8.4.4\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "resolv.conf")
			tc.make(t, dir, path)
			if err := update(path, servers); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".wrenn-*")); err != nil || left != nil {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

func TestUpdateLeavesWhatIsNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := update(path, func([]byte) []byte { return []byte("x") }); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("update = %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe became %v, %v", info.Mode(), err)
	}
}

func TestUpdateKeepsAFileThatIsRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, "same")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := update(path, func(old []byte) []byte { return old }); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
}

func TestIdentifyRefusesBeforeItChanges(t *testing.T) {
	for _, name := range []string{"-a", "a b", "a\n", strings.Repeat("a", 65), "ä", "."} {
		if err := identify(mmds.Document{Hostname: name}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("identify(%q) = %v", name, err)
		}
	}
}

func TestRoutes(t *testing.T) {
	var got []string
	for _, r := range routes(7) {
		if r.LinkIndex != 7 {
			t.Errorf("route %v is of link %d", r, r.LinkIndex)
		}
		got = append(got, r.Dst.String()+" "+r.Gw.String())
	}
	if want := "169.254.169.254/32 <nil>,0.0.0.0/0 169.254.0.22"; strings.Join(got, ",") != want {
		t.Errorf("routes = %q, want %q", got, want)
	}
}

func TestChronydArgs(t *testing.T) {
	got := strings.Join(chronydArgs("/run/wrenn/chrony.conf", "_chrony"), " ")
	if want := "chronyd -n -f /run/wrenn/chrony.conf -u _chrony -P 1"; got != want {
		t.Errorf("chronydArgs = %q, want %q", got, want)
	}
}

func TestMountsComeInOrder(t *testing.T) {
	made := map[string]bool{}
	for _, m := range mounts {
		for _, later := range mounts {
			if strings.HasPrefix(later.target, m.target+"/") && made[later.target] {
				t.Errorf("%s hides %s", m.target, later.target)
			}
		}
		made[m.target] = true
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
