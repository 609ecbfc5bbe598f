package pager

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func TestConfigIsChecked(t *testing.T) {
	good := func() Config { return Config{Layout: zeros(1), Listen: Socket{Path: "x"}} }
	c := good()
	if err := c.check(); err != nil || c.Around != DefaultAround || c.MaxPages != DefaultMaxPages || c.ConnectTimeout != time.Minute {
		t.Errorf("%+v, %v", c, err)
	}
	for name, spoil := range map[string]func(*Config){
		"layout":          func(c *Config) { c.Layout = nil },
		"layout ":         func(c *Config) { c.Layout = layout{{-1, 0, 5000}} },
		"layout  ":        func(c *Config) { c.Layout = layout{} },
		"listen":          func(c *Config) { c.Listen.Path = "" },
		"listen ":         func(c *Config) { c.Listen.File = os.Stdin },
		"control":         func(c *Config) { c.Control = &Socket{} },
		"around":          func(c *Config) { c.Around = 3 },
		"around ":         func(c *Config) { c.Around = 128 },
		"max-pages":       func(c *Config) { c.MaxPages = maxSetPages + 1 },
		"connect-timeout": func(c *Config) { c.ConnectTimeout = -1 },
	} {
		c := good()
		spoil(&c)
		var field *errs.FieldError
		if err := c.check(); !errors.As(err, &field) || field.Field != strings.TrimSpace(name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// brief is a Config for a pager that nobody connects to, and where its stats go.
func brief(t *testing.T) (Config, *Stats) {
	t.Helper()
	procs, percent, limit := runtime.GOMAXPROCS(0), debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() { // Run thinks that it has the process to itself
		runtime.GOMAXPROCS(procs)
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	var last Stats
	c := file(t, "abcd")
	c.Listen = Socket{Path: filepath.Join(t.TempDir(), "sock"), UID: os.Getuid(), GID: os.Getgid()}
	c.ConnectTimeout, c.Metrics = 50*time.Millisecond, func(s Stats) { last = s }
	return c, &last
}

func TestRunEndsWhenNobodyComes(t *testing.T) {
	c, last := brief(t)
	readied := false
	c.Ready = func() error {
		readied = true
		conn, err := net.Dial("unix", c.Listen.Path)
		if err == nil {
			conn.Close()
		}
		return err
	}
	c.Peer.UID = os.Getuid() + 1
	if err := Run(t.Context(), c); !errors.Is(err, errs.ErrUnavailable) || !readied || !strings.Contains(last.End, "in time") {
		t.Errorf("%v, %v, %v", err, readied, last)
	}
	if _, err := os.Stat(c.Listen.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestRunWithSocketsThatListen is given both sockets; it neither makes nor removes any.
func TestRunWithSocketsThatListen(t *testing.T) {
	c, _ := brief(t)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Listen.Path})
	must(t, err)
	defer ln.Close()
	f, err := ln.File()
	must(t, err)
	defer f.Close()
	c.Listen = Socket{File: f}
	c.Peer.UID = os.Getuid()
	c.ConnectTimeout = 10 * time.Second
	c.Ready = func() error {
		conn, err := net.Dial("unix", ln.Addr().String())
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	if err := Run(t.Context(), c); !errors.Is(err, errs.ErrInvalid) || !strings.Contains(err.Error(), "ends after 0 bytes") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(ln.Addr().String()); err != nil {
		t.Errorf("the socket that was given is gone: %v", err)
	}
}

func TestRunFailsAtOnce(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		spoil func(*Config)
		want  error
	}{
		"config":            {func(c *Config) { c.Around = 3 }, errs.ErrInvalid},
		"short file":        {func(c *Config) { must(t, os.Truncate(c.Files[0].Name(), 100)) }, errs.ErrCorrupt},
		"record":            {func(c *Config) { c.Record = "/no/such/folder/set" }, os.ErrNotExist},
		"listen":            {func(c *Config) { c.Listen.Path = "/no/such/folder/sock" }, os.ErrNotExist},
		"control":           {func(c *Config) { c.Control = &Socket{Path: c.Listen.Path} }, errs.ErrAlreadyExists},
		"to root":           {func(c *Config) { c.DropTo = &Identity{0, 0} }, errs.ErrInvalid},
		"nobody to tell":    {func(c *Config) { c.Ready = func() error { return broken } }, broken},
		"a socket of stdin": {func(c *Config) { f, err := os.Open(os.DevNull); must(t, err); c.Listen = Socket{File: f} }, unix.ENOTSOCK},
	} {
		c, last := brief(t)
		tt.spoil(&c)
		if err := Run(t.Context(), c); !errors.Is(err, tt.want) || last.End != err.Error() {
			t.Errorf("%s: %v, %q", name, err, last.End)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	c, _ := brief(t)
	c.ConnectTimeout = time.Minute
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	c.Ready = func() error { cancel(why); return nil }
	if err := Run(ctx, c); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// panics is a layout that fails in its own way.
type panics struct{ layout }

func (panics) Find(uint64) Extent { panic("at the disco") }

func TestPanicIsAnError(t *testing.T) {
	c, last := brief(t)
	c.Layout = panics{zeros(1)}
	if err := Run(t.Context(), c); err == nil || !strings.Contains(last.End, "at the disco") {
		t.Errorf("%v", err)
	}
}

// interpret runs a program for the kernel, of the few instructions that ours is made of.
func interpret(code []unix.SockFilter, arch, nr uint32) uint32 {
	var acc uint32
	for pc := 0; ; pc++ {
		in, jump := code[pc], false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = map[uint32]uint32{0: nr, 4: arch}[in.K]
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump = acc == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump = acc >= in.K
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		}
		if jump {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
}

func TestFilter(t *testing.T) {
	code, err := filter()
	must(t, err)
	run := func(arch, nr uint32) uint32 { return interpret(code, arch, nr) }
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	}
	const denied = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, nr := range forbidden {
		if run(arch, nr) != denied {
			t.Errorf("call %d is allowed", nr)
		}
	}
	for _, nr := range []uint32{unix.SYS_READ, unix.SYS_IOCTL, unix.SYS_PREAD64, unix.SYS_PPOLL, unix.SYS_CLONE, unix.SYS_EXIT_GROUP} {
		if run(arch, nr) != unix.SECCOMP_RET_ALLOW {
			t.Errorf("call %d is denied", nr)
		}
	}
	if run(arch+1, unix.SYS_READ) != denied || run(arch, 0x40000000|unix.SYS_READ) != denied {
		t.Error("another set of numbers is allowed")
	}
}

func TestLatencyBuckets(t *testing.T) {
	var s Stats
	for _, d := range []time.Duration{0, 5 * time.Microsecond, 6 * time.Microsecond, time.Second, time.Hour} {
		s.took(d)
	}
	if s.Latency[0] != 2 || s.Latency[1] != 1 || s.Latency[len(s.Latency)-1] != 2 {
		t.Errorf("%v", s)
	}
	if !strings.Contains(s.String(), `"latency":[2,1,`) {
		t.Errorf("%v", s)
	}
}
