package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/emulated"
	"wrenn.dev/wrenn/test/kvmhost/layout"
	"wrenn.dev/wrenn/test/kvmhost/machine"
)

// The values of --init.
const (
	initAgent   = "agent"
	initSystemd = "systemd"
)

// hostFlags say what is in a host.
type hostFlags struct {
	bin, images     string
	memory, scratch string
	state, init     string
	forwards        []string
}

func (h *hostFlags) register(f *pflag.FlagSet) {
	f.StringVar(&h.bin, "bin", "", "folder of built binaries")
	f.StringVar(&h.images, "images", "", "folder of the templates")
	f.StringVar(&h.memory, "memory", "4G", "memory of the host, as 4G or 4096M")
	f.StringVar(&h.scratch, "scratch", "20G", "size of the disk at "+layout.State+"; it takes only what is written")
	f.StringVar(&h.state, "state", "", "file that keeps that disk for the next host; it is made if it is not there (default: it is thrown away)")
	f.StringVar(&h.init, "init", initAgent, "what brings the host up: "+initAgent+", which takes the least time, or "+initSystemd)
	f.StringArrayVar(&h.forwards, "forward", nil, "HOSTPORT:GUESTPORT: reach a port inside on 127.0.0.1 (may be repeated)")
}

// args are the flags that were set, for another process of this tool.
func (h *hostFlags) args() []string {
	args := []string{"--bin=" + h.bin, "--images=" + h.images, "--memory=" + h.memory, "--scratch=" + h.scratch,
		"--state=" + h.state, "--init=" + h.init}
	for _, f := range h.forwards {
		args = append(args, "--forward="+f)
	}
	return args
}

// check makes the folders absolute and refuses what is wrong, before anything is made.
func (h *hostFlags) check() error {
	for _, f := range []struct {
		flag  string
		value *string
	}{{"--bin", &h.bin}, {"--images", &h.images}} {
		if *f.value == "" {
			continue
		}
		abs, err := filepath.Abs(*f.value)
		if err != nil {
			return err
		}
		if info, err := os.Stat(abs); err != nil || !info.IsDir() {
			return errs.Field(f.flag, fmt.Sprintf("%s is not a folder", *f.value), "give the path of one")
		}
		*f.value = abs
	}
	if h.init != initAgent && h.init != initSystemd {
		return errs.Field("--init", fmt.Sprintf("%q is none", h.init), "give "+initAgent+" or "+initSystemd)
	}
	if h.state != "" {
		abs, err := filepath.Abs(h.state)
		if err != nil {
			return err
		}
		h.state = abs
	}
	_, err := h.options(nil)
	return err
}

// options are what emulated.Boot takes.
func (h *hostFlags) options(log io.Writer) (emulated.Options, error) {
	o := emulated.Options{Bin: h.bin, Images: h.images, State: h.state, Systemd: h.init == initSystemd, Log: log}
	memory, err := parseSize("--memory", h.memory, 512<<20, 1<<40)
	o.Memory = int(memory >> 20)
	scratch, errScratch := parseSize("--scratch", h.scratch, 512<<20, 16<<40)
	o.Scratch = scratch
	err = errors.Join(err, errScratch)
	for _, s := range h.forwards {
		f, e := machine.ParseForward(s)
		o.Forwards = append(o.Forwards, f)
		err = errors.Join(err, e)
	}
	return o, err
}

// parseSize reads a size in bytes with a unit, M or G.
func parseSize(flag, s string, least, most int64) (int64, error) {
	units := map[string]int64{"M": 1 << 20, "G": 1 << 30}
	for unit, factor := range units {
		number, ok := strings.CutSuffix(strings.ToUpper(s), unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n <= 0 || n > most/factor || n*factor < least {
			return 0, errs.Field(flag, fmt.Sprintf("%q is out of range", s), fmt.Sprintf("give between %dM and %dG", least>>20, most>>30))
		}
		return n * factor, nil
	}
	return 0, errs.Field(flag, fmt.Sprintf("%q is not a size", s), "give a number with its unit, as 512M or 4G")
}

// environment is what commands find set besides the host's own environment.
func environment(bin, images string, more ...string) []string {
	env := more
	if bin != "" {
		env = append(env, "WRENN_BIN="+bin)
	}
	if images != "" {
		env = append(env, "WRENN_IMAGES="+images)
	}
	if ci, ok := os.LookupEnv("CI"); ok {
		env = append(env, "CI="+ci)
	}
	return env
}

// insideEnvironment is environment for the emulated host.
func (h *hostFlags) insideEnvironment(more ...string) []string {
	bin, images := h.bin, h.images
	if bin != "" {
		bin = layout.Bin
	}
	if images != "" {
		images = layout.Images
	}
	return environment(bin, images, more...)
}
