package pager

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager/uffd"
)

// door is a listener and the wait for a machine at it.
type door struct {
	path   string
	result chan error
	cancel context.CancelCauseFunc
}

func open(t *testing.T, who Peer, patience time.Duration) door {
	t.Helper()
	d := door{path: filepath.Join(t.TempDir(), "sock"), result: make(chan error, 1)}
	l, err := listen(Socket{Path: d.path, UID: os.Getuid(), GID: os.Getgid()})
	must(t, err)
	w, err := newWaker()
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := context.AfterFunc(ctx, w.wake)
	d.cancel = cancel
	go func() {
		_, err := handshake(ctx, l, w, who, 1<<30, time.Now().Add(patience))
		stop()
		l.close()
		w.close()
		d.result <- err
	}()
	return d
}

// say connects and sends messages, each with so many descriptors.
func (d door) say(t *testing.T, fds []int, messages ...string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.path})
	must(t, err)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for i, m := range messages {
		var rights []byte
		if i < len(fds) && fds[i] > 0 {
			list := make([]int, fds[i])
			for j := range list {
				list[j] = int(null.Fd())
			}
			rights = unix.UnixRights(list...)
		}
		if _, _, err := conn.WriteMsgUnix([]byte(m), rights, nil); err != nil {
			t.Logf("message %d: %v", i, err)
		}
		time.Sleep(time.Millisecond) // so that it is a message of its own
	}
	return conn
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func TestWhatIsNoGreeting(t *testing.T) {
	const good = `[{"base_host_virt_addr":4096,"size":4096,"offset":0}]`
	us := Peer{UID: os.Getuid(), PID: os.Getpid()}
	before := openFiles(t)
	for name, tt := range map[string]struct {
		fds      []int
		messages []string
		hangUp   bool
		want     error
	}{
		"a descriptor that is something else": {[]int{1}, []string{good}, false, uffd.ErrNotUserfaultfd},
		"in two pieces":                       {[]int{1}, []string{good[:10], good[10:]}, false, uffd.ErrNotUserfaultfd},
		"the descriptor in the second":        {[]int{0, 1}, []string{good[:10], good[10:]}, false, uffd.ErrNotUserfaultfd},
		"no descriptor":                       {nil, append([]string{"["}, slices.Repeat([]string{" "}, 200)...), false, errs.ErrInvalid}, // some may come together
		"two descriptors":                     {[]int{2}, []string{good}, false, errs.ErrInvalid},
		"more descriptors than are taken":     {[]int{100}, []string{good}, false, errs.ErrInvalid},
		"too long":                            {[]int{1}, []string{strings.Repeat(" ", 40<<10), strings.Repeat(" ", 40<<10)}, false, errs.ErrInvalid},
		"ends in the middle":                  {[]int{1}, []string{good[:10]}, true, errs.ErrInvalid},
		"nothing":                             {nil, nil, true, errs.ErrInvalid},
		"bad regions":                         {[]int{1}, []string{"[]"}, false, errs.ErrInvalid},
		"no end":                              {[]int{1}, []string{"["}, false, errs.ErrUnavailable},
	} {
		patience := 10 * time.Second
		if errors.Is(tt.want, errs.ErrUnavailable) {
			patience = 100 * time.Millisecond
		}
		d := open(t, us, patience)
		conn := d.say(t, tt.fds, tt.messages...)
		if tt.hangUp {
			conn.Close()
		}
		if err := <-d.result; !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	if after := openFiles(t); after > before+1 { // the runtime's own poller
		t.Errorf("%d descriptors were open, %d are", before, after)
	}
}

func TestStrangersDoNotEndTheWait(t *testing.T) {
	for name, who := range map[string]Peer{"uid": {UID: os.Getuid() + 1}, "pid": {UID: os.Getuid(), PID: os.Getpid() + 1}} {
		d := open(t, who, 200*time.Millisecond)
		conn := d.say(t, nil)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the stranger is talked to", name)
		}
		conn.Close()
		if err := <-d.result; !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContextEndsTheWait(t *testing.T) {
	why := errors.New("enough")
	d := open(t, Peer{}, time.Minute)
	d.cancel(why)
	if err := <-d.result; !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	l, err := listen(Socket{Path: path, UID: os.Getuid(), GID: os.Getgid()})
	must(t, err)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := listen(Socket{Path: path}); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the second removed the first's socket: %v", err)
	}
	l.close()
	l.close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after close: %v", err)
	}
	for name, path := range map[string]string{"no folder": filepath.Join(path, "none", "sock"), "too long": filepath.Join(t.TempDir(), strings.Repeat("x", 120))} {
		if _, err := listen(Socket{Path: path}); err == nil {
			t.Errorf("%s is listened on", name)
		}
	}
}
