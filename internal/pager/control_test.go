package pager

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

// commanded is a box with a control socket.
func commanded(t *testing.T, c Config) (*box, *control, Client) {
	t.Helper()
	b := newBox(t, c, nil)
	path := filepath.Join(t.TempDir(), "control")
	ctl, err := newControl(&Socket{Path: path, UID: os.Getuid(), GID: os.Getgid()}, b.wake)
	must(t, err)
	ctl.start()
	b.requests = ctl.requests
	return b, ctl, Client{path}
}

func TestControl(t *testing.T) {
	c := file(t, "abcd")
	c.Record = filepath.Join(t.TempDir(), "set")
	b, ctl, client := commanded(t, c)
	b.serve()
	b.reads(2, 'c')
	ctx := t.Context()
	if pages, err := client.StopRecording(ctx); err != nil || pages != 1 {
		t.Errorf("%d, %v", pages, err)
	}
	if _, err := client.StopRecording(ctx); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("%v", err)
	}
	if err := client.Stream(ctx); err != nil {
		t.Error(err)
	}
	stats, err := client.Stats(ctx)
	if err != nil || stats.Faults != 1 || stats.Recorded != 1 {
		t.Errorf("%v, %v", stats, err)
	}
	if _, err := client.do(ctx, "dance"); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("%v", err)
	}
	b.finish()
	ctl.close()
	if _, err := client.Stats(ctx); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestControlRefusesGarbage(t *testing.T) {
	b, ctl, client := commanded(t, file(t, "abcd"))
	for _, line := range []string{"\n", "stats\n", "[]\n", strings.Repeat("x", 2*maxCommand)} {
		conn, err := net.Dial("unix", client.Path)
		must(t, err)
		if _, err := conn.Write([]byte(line)); err != nil {
			t.Error(err)
		}
		answer := make([]byte, maxReply)
		if n, err := conn.Read(answer); err != nil || !bytes.Contains(answer[:n], []byte(`"kind":"invalid"`)) {
			t.Errorf("%.10q: %q, %v", line, answer[:n], err)
		}
		conn.Close()
	}
	ctl.close()
	b.close()
}

func TestWhoMayCommand(t *testing.T) {
	c := &control{uid: 7}
	for uid, want := range map[uint32]error{0: nil, 7: nil, 8: errs.ErrUnauthenticated} {
		if err := c.permits(uid); !errors.Is(err, want) {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
}

// TestControlOfAPagerThatHangs has commands end with the caller's patience, and with the pager.
func TestControlOfAPagerThatHangs(t *testing.T) {
	b, ctl, client := commanded(t, file(t, "abcd")) // it does not serve
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Stats(ctx); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	done := make(chan error)
	go func() {
		_, err := client.Stats(t.Context())
		done <- err
	}()
	<-ctl.requests
	ctl.close()
	if err := <-done; !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	b.close()
}

func TestRepliesKeepTheKindOfError(t *testing.T) {
	for _, kind := range kinds {
		if err := fail(errors.Join(errors.New("x"), kind)).err(); !errors.Is(err, kind) {
			t.Errorf("%v became %v", kind, err)
		}
	}
	if err := fail(errors.New("x")).err(); err == nil {
		t.Error("an error without a kind is lost")
	}
}

func FuzzReadCommand(f *testing.F) {
	f.Add([]byte(`{"op":"stats"}` + "\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cmd, err := readCommand(bytes.NewReader(data))
		if err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Fatal(err)
		}
		if err != nil && cmd != (Command{}) {
			t.Fatalf("%+v with %v", cmd, err)
		}
	})
}

func TestReadCommand(t *testing.T) {
	got, err := readCommand(strings.NewReader(`{"op":"stats","more":1}` + "\nrest"))
	if diff := cmp.Diff(Command{"stats"}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}
