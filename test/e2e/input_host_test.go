//go:build hosttest

package e2e

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestBadInputMakesNothing gives what can't be: one line that names the field and the fix, exit code 2, nothing made.
func TestBadInputMakesNothing(t *testing.T) {
	nothingLeft(t)
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown template":    {[]string{"--template", "nope", "--", "true"}, []string{"nope", "base"}},
		"bad template name":   {[]string{"--template", "../etc", "--", "true"}, []string{"template"}},
		"little memory":       {[]string{"--memory", "16M", "--", "true"}, []string{"memory", "128M"}},
		"no size":             {[]string{"--memory", "lots", "--", "true"}, []string{"--memory", "512M"}},
		"many vcpus":          {[]string{"--vcpus", "99", "--", "true"}, []string{"vcpus", "1 to 32"}},
		"small disk":          {[]string{"--disk", "1M", "--", "true"}, []string{"disk", "at least"}},
		"bad duration":        {[]string{"--timeout", "soon", "--", "true"}, []string{"--timeout", "90s"}},
		"bad variable":        {[]string{"--env", "novalue", "--", "true"}, []string{"--env", "NAME=VALUE"}},
		"no command":          {nil, []string{"arguments", "after --"}},
		"unknown flag":        {[]string{"--nope", "--", "true"}, []string{"--nope", "--help"}},
		"missing firecracker": {[]string{"--firecracker", "/nope", "--", "true"}, []string{"firecracker", "/nope"}},
		"taken uid range":     {[]string{"--uid-base", "0", "--", "true"}, []string{"uid-base"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := wrenn(t, append([]string{"run"}, c.args...)...).want(t, 2)
			if lines := strings.Count(strings.TrimSpace(r.errOut), "\n") + 1; lines != 1 {
				t.Errorf("%d lines: %q", lines, r.errOut)
			}
			for _, w := range c.want {
				if !strings.Contains(r.errOut, w) {
					t.Errorf("%q does not say %q", r.errOut, w)
				}
			}
		})
	}
}

func TestNeedsRoot(t *testing.T) {
	cmd := command(t, nil, "run", "--", "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	r := finish(t, cmd).want(t, 2)
	if !strings.Contains(r.errOut, "root") {
		t.Errorf("stderr = %q", r.errOut)
	}
}

func TestHostCheckSaysThisHostIsFit(t *testing.T) {
	nothingLeft(t)
	r := wrenn(t, "host", "check", "--require", "run").want(t, 0)
	for _, item := range []string{"kvm", "dm-snapshot", "loop", "tun", "userfaultfd", "cgroup", "nftables", "firecracker", "jailer", "disk", "reflink", "swap", "ptp"} {
		if !strings.Contains(strings.ToLower(r.out), item) {
			t.Errorf("the check does not speak of %s:\n%s", item, r.out)
		}
	}
	if out, err := exec.Command(binary(t), "host", "check", "--json").Output(); err != nil || !strings.HasPrefix(strings.TrimSpace(string(out)), "{") {
		t.Errorf("--json: %v, %.100s", err, out)
	}
}
