//go:build hostboot

// Package systemd tests Wrenn on a host that systemd runs, as one is that was set up by deploy/systemd/install: in the emulated KVM
// host with systemd as its init.
package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/buildcache"
)

// patience bounds one command inside.
const patience = 4 * time.Minute

// root is the folder of the checkout.
const root = "../.."

// host is an emulated host with systemd that keeps its state when it restarts.
type host struct {
	t                 *testing.T
	tool, name, state string
}

// newHost boots one on which /root is as a checkout in which everything is built.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, tool: filepath.Join(root, "bin/kvmhost"), name: fmt.Sprintf("systemd-%d", os.Getpid()),
		state: filepath.Join(t.TempDir(), "state.img")}
	t.Cleanup(func() { _ = exec.Command(h.tool, "down", h.name).Run() })
	h.boot()
	return h
}

// images is where the templates are on a host.
const images = "/images"

// boot boots the host. Nothing but its state has outlived a restart.
func (h *host) boot() {
	h.t.Helper()
	cache, err := buildcache.Dir()
	if err != nil {
		h.t.Fatal(err)
	}
	began := time.Now()
	h.tooled("up", h.name, "--init", "systemd", "--state", h.state, "--bin", filepath.Join(root, "bin"), "--images", filepath.Join(cache, "images"))
	h.t.Logf("booted after %.0f s", time.Since(began).Seconds())
	files, err := exec.Command("tar", "-C", root, "-c", "deploy").Output()
	if err != nil {
		h.t.Fatal(err)
	}
	h.with(bytes.NewReader(files), "tar -C /root -x && ln -s /opt/wrenn/bin /root/bin")
}

// install installs Wrenn.
func (h *host) install() {
	h.t.Helper()
	h.sh("cd /root && deploy/systemd/install bin")
	h.sh("mkdir /etc/wrenn && echo WRENN_IMAGES=" + images + " | tee /etc/wrenn/agent.env >/etc/wrenn/up.env")
}

// restart restarts the host as an operator does, and boots what comes up.
func (h *host) restart() {
	h.t.Helper()
	_, _ = h.try(nil, "exec", h.name, "--", "systemctl", "reboot") // it may be gone before it has answered
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		out, err := h.try(nil, "exec", h.name, "--", "true")
		if err != nil && strings.Contains(err.Error(), "no sign of life") {
			h.t.Fatalf("the host hung on its way down: %v", err)
		}
		if err != nil && strings.Contains(err.Error(), "switched off from inside") {
			break
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the host does not restart: %v %s", err, out)
		}
	}
	h.boot()
}

// try runs kvmhost.
func (h *host) try(stdin *bytes.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	began := time.Now()
	defer func() { h.t.Logf("%.1f s: %.90q", time.Since(began).Seconds(), args[len(args)-1]) }()
	cmd := exec.CommandContext(ctx, h.tool, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%v: %w\n%s", args, errors.Join(ctx.Err(), err), problems.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (h *host) tooled(args ...string) string {
	h.t.Helper()
	out, err := h.try(nil, args...)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// sh runs a script inside and returns what it printed.
func (h *host) sh(script string) string {
	h.t.Helper()
	return h.tooled("exec", h.name, "--", "sh", "-euc", script)
}

// with is sh with a standard input.
func (h *host) with(stdin *bytes.Reader, script string) string {
	h.t.Helper()
	out, err := h.try(stdin, "exec", h.name, "--", "sh", "-euc", script)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return out
}
