package debian

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

func TestBootstrapArguments(t *testing.T) {
	o := Options{
		Variant: "extract", Include: []string{"a", "b"}, Dir: "/tree", Mode: "root", Skip: []string{"x", "y"},
		SetupHooks: []string{"s"}, EssentialHooks: []string{"e"}, CustomizeHooks: []string{"c 1", "c 2"},
		AptOptions: []string{"apt"}, DpkgOptions: []string{"dpkg"},
	}
	got := strings.Join(o.args([]string{"deb one", "deb two"}), "\n")
	want := strings.Join([]string{"--variant=extract", "--include=a,b", "--mode=root", "--skip=x,y", "--aptopt=apt", "--dpkgopt=dpkg",
		"--setup-hook=s", "--essential-hook=e", "--customize-hook=c 1", "--customize-hook=c 2",
		"--format=directory", "trixie", "/tree", "deb one", "deb two"}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join((Options{Suite: "sid", Tar: new(bytes.Buffer)}).args(nil), " "); got != "--format=tar sid -" {
		t.Errorf("tar: %s", got)
	}
}

func TestBootstrapRuns(t *testing.T) {
	t.Setenv(MirrorEnv, "http://m.example/debian")
	program(t, "mmdebstrap", `echo "I: working" >&2; echo "$SOURCE_DATE_EPOCH"; exit 0`)
	var tar, log bytes.Buffer
	err := Bootstrap(t.Context(), Options{Tar: &tar, Log: &log, Epoch: time.Unix(1234, 0)})
	if err != nil || tar.String() != "1234\n" || log.String() != "I: working\n" {
		t.Errorf("tar %q, log %q, %v", tar.String(), log.String(), err)
	}
}

func TestBootstrapErrorHasTheEndOfTheLog(t *testing.T) {
	t.Setenv(MirrorEnv, "http://m.example/debian")
	program(t, "mmdebstrap", `for i in $(seq 2000); do echo "line $i" >&2; done; echo "E: no such package" >&2; exit 1`)
	err := Bootstrap(t.Context(), Options{Dir: t.TempDir()})
	if err == nil || !strings.HasSuffix(err.Error(), "line 2000\nE: no such package") {
		t.Fatalf("err = %v", err)
	}
	if n := len(err.Error()); n > tailSize+200 {
		t.Errorf("the error has %d bytes", n)
	}
}

func TestBootstrapWithoutItsTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Bootstrap(t.Context(), Options{Dir: t.TempDir()})
	if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("err = %v", err)
	}
}

func TestBootstrapWantsOneTarget(t *testing.T) {
	for _, o := range []Options{{}, {Dir: "/x", Tar: new(bytes.Buffer)}} {
		if err := Bootstrap(t.Context(), o); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestBootstrapEndsWithItsContext(t *testing.T) {
	t.Setenv(MirrorEnv, "http://m.example/debian")
	cleaned := filepath.Join(t.TempDir(), "cleaned")
	program(t, "mmdebstrap", `trap 'touch `+cleaned+`; exit 1' TERM; echo started >&2; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	err := Bootstrap(ctx, Options{Dir: t.TempDir(), Log: writerFunc(func(p []byte) { cancel() })})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if _, err := os.Stat(cleaned); err != nil {
		t.Error("mmdebstrap was not let to clean up:", err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
