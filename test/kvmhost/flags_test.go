package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/machine"
)

// parsed are the host's flags as a command line sets them.
func parsed(t *testing.T, args ...string) *hostFlags {
	t.Helper()
	var h hostFlags
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	h.register(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &h
}

func TestSizes(t *testing.T) {
	const least, most = 512 << 20, 1 << 40
	for text, want := range map[string]int64{
		"512M": 512 << 20, "4G": 4 << 30, "4g": 4 << 30, "1024G": 1 << 40, "1048576M": 1 << 40,
		"511M": 0, "0G": 0, "-4G": 0, "1025G": 0, "99999999999999999999G": 0, "9223372036854775807M": 0, "4": 0, "": 0, "G": 0, "4T": 0, "4.5G": 0, "4 G": 0, "4GG": 0,
	} {
		got, err := parseSize("--x", text, least, most)
		if got != want || (err == nil) != (want > 0) || err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestHostFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h := parsed(t, "--bin=.", "--images", dir, "--memory=2048M", "--scratch=1G", "--state=s", "--init=systemd", "--forward=8080:80", "--forward=1:2")
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	o, err := h.options(io.Discard)
	if err != nil || o.Bin != dir || o.Images != dir || o.Memory != 2048 || o.Scratch != 1<<30 || o.State != filepath.Join(dir, "s") || !o.Systemd ||
		!slices.Equal(o.Forwards, []machine.Forward{{Host: 8080, Guest: 80}, {Host: 1, Guest: 2}}) {
		t.Errorf("got %+v, %v", o, err)
	}
	if again := parsed(t, h.args()...); !cmp.Equal(h, again, cmp.AllowUnexported(hostFlags{})) {
		t.Errorf("args give %+v, want %+v", again, h)
	}
	if err := parsed(t).check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, arg := range []string{"--bin=nope", "--images=file", "--memory=1M", "--scratch=x", "--init=upstart", "--forward=80"} {
		flag, _, _ := strings.Cut(arg, "=")
		if err := parsed(t, arg).check(); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(fmt.Sprint(err), flag) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("CI", "yes")
	inside := (&hostFlags{bin: "/b", images: "/i"}).insideEnvironment("A=1")
	if want := []string{"A=1", "WRENN_BIN=/opt/wrenn/bin", "WRENN_IMAGES=/images", "CI=yes"}; !slices.Equal(inside, want) {
		t.Errorf("inside: %v", inside)
	}
	if got, want := environment("/b", "/i"), []string{"WRENN_BIN=/b", "WRENN_IMAGES=/i", "CI=yes"}; !slices.Equal(got, want) {
		t.Errorf("here: %v", got)
	}
	if err := os.Unsetenv("CI"); err != nil {
		t.Fatal(err)
	}
	if got := (&hostFlags{}).insideEnvironment(); len(got) != 0 {
		t.Errorf("nothing is in the host, but %v is said", got)
	}
}

func TestTestFlags(t *testing.T) {
	good := testFlags{host: *parsed(t), hosts: 1, timeout: time.Minute}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*testFlags){
		func(f *testFlags) { f.hosts = 0 }, func(f *testFlags) { f.timeout = 0 }, func(f *testFlags) { f.host.memory = "" },
	} {
		bad := good
		if change(&bad); !errors.Is(bad.check(), errs.ErrInvalid) {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestSplitName(t *testing.T) {
	for line, want := range map[string]string{"-- ls -l": "default [ls -l]", "one -- ls": "one [ls]", "ls": "", "one two -- ls": "", "one --": "", "--": "", "": ""} {
		got := ""
		cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, args []string) error {
			name, command, err := splitName(cmd, args)
			if err == nil {
				got = fmt.Sprint(name, " ", command)
			}
			return err
		}}
		cmd.SetArgs(strings.Fields(line))
		err := cmd.Execute()
		if got != want || errors.Is(err, errs.ErrInvalid) != (want == "") {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func TestUseNative(t *testing.T) {
	for where, want := range map[string]bool{"native": true, "emulated": false, "auto": false} {
		var said strings.Builder
		got, err := useNative(t.Context(), where, "", &said)
		if err != nil || got != want || strings.Count(said.String(), "\n") != 1 {
			t.Errorf("%s: %v, %v, %q", where, got, err, &said)
		}
	}
	if _, err := useNative(t.Context(), "elsewhere", "", io.Discard); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	null, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {exitCode(7), 7}, {fmt.Errorf("x: %w", exitCode(0)), 0}, {errs.Field("--x", "no", ""), exitUsage},
		{fmt.Errorf("x: %w", context.Canceled), exitInterrupted}, {errors.New("x"), exitFailed}, {&machine.Lost{}, exitFailed},
	} {
		if got := report(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
	for _, args := range [][]string{{"nope"}, {"run", "--nope"}, {"exec", "ls"}, {"test", "--hosts=0"}} {
		if got := run(args); got != exitUsage && args[0] != "nope" || got == 0 {
			t.Errorf("%v: exit code %d", args, got)
		}
	}
}
