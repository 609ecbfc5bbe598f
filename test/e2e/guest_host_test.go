//go:build hosttest

package e2e

import (
	"bufio"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

// facts is a script that prints NAME=VALUE lines about the guest.
const facts = `
echo "hostname=$(hostname)"
echo "id=$WRENN_SANDBOX_ID"
echo "template=$WRENN_TEMPLATE_ID"
echo "user=$(id -un):$(id -u):$(id -g)"
echo "home=$HOME:$(pwd)"
echo "sudo=$(sudo -n id -u)"
echo "cpus=$(nproc)"
echo "memory=$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
echo "root=$(df --output=size -BM / | tail -1 | tr -d ' M')"
echo "zeros=$(sudo tail -c 1048576 /dev/vda | tr -d '\0' | wc -c)"
echo "pid1=$(cat /proc/1/comm)"
echo "tools=$(for tool in socat chronyc sudo python3 git curl; do command -v $tool; done | wc -l)"
echo "ca=$(grep -c BEGIN /etc/ssl/certs/ca-certificates.crt)"
sudo modprobe overlay && echo "overlay=$(grep -c overlay /proc/filesystems)"
echo "mountpoints=$(for m in /proc /sys /dev /dev/pts /dev/shm /run /sys/fs/cgroup /lib/modules; do mountpoint -q $m || printf %s, $m; done)"
echo "console=$(cat /sys/class/tty/console/active)"
token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
meta() { curl -s -H "X-metadata-token: $token" http://169.254.169.254/"$1"; }
echo "meta-id=$(meta WRENN_SANDBOX_ID)"
echo "meta-template=$(meta WRENN_TEMPLATE_ID)"
echo "meta-keys=$(meta '' | sort | tr '\n' ,)"
echo "meta-v1=$(curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/WRENN_SANDBOX_ID)"
rpc() { curl -s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' "$@" http://127.0.0.1:49983/process.Process/List -d '{}'; }
echo "rpc-none=$(rpc)"
echo "rpc-wrong=$(rpc -H 'X-Access-Token: 0000')"
echo "health=$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:49983/health)"
envd=$(pgrep -x envd)
echo "envd-environ=$(sudo cat /proc/$envd/environ | tr '\0' '\n' | grep -c -i token)"
echo "own-environ=$(env | grep -c -i token)"
`

// TestGuest asks one guest for everything that must be true in it: a boot is the dear part.
func TestGuest(t *testing.T) {
	nothingLeft(t)
	r := wrenn(t, "run", "--vcpus", "2", "--memory", "512M", "--disk", "3G", "--", "sh", "-c", facts).want(t, 0)
	got := r.fields()
	for name, want := range map[string]string{
		"template": "base", "user": "user:1000:1000", "home": "/home/user:/home/user", "sudo": "0", "cpus": "2", "zeros": "0",
		"tools": "6", "overlay": "1", "mountpoints": "", "meta-template": got["template"], "meta-id": got["id"], "hostname": got["id"],
		"meta-v1": "401", "rpc-none": "401", "rpc-wrong": "401", "health": "204", "envd-environ": "0", "own-environ": "0",
		"meta-keys": "WRENN_HOSTNAME,WRENN_SANDBOX_ID,WRENN_START,WRENN_TEMPLATE_ID,",
	} {
		if name == "template" {
			if got[name] == "" {
				t.Error("the guest does not know its template")
			}
			continue
		}
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s = %q, want %q", name, v, want)
		}
	}
	if !idPattern.MatchString(got["id"]) {
		t.Errorf("id = %q", got["id"])
	}
	between(t, got, "memory", 420, 512)
	between(t, got, "root", 2600, 3072)
	between(t, got, "ca", 50, 1000)
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", r.out, r.errOut)
	}
}

func between(t *testing.T, got map[string]string, name string, low, high int) {
	t.Helper()
	if n, err := strconv.Atoi(got[name]); err != nil || n < low || n > high {
		t.Errorf("%s = %q, want %d to %d", name, got[name], low, high)
	}
}

// clockLimit is how far the guest's clock may be off. Under emulation a call takes many milliseconds.
const clockLimit = 250 * time.Millisecond

// TestClock asks the guest for its time and brackets each answer with the host's own.
func TestClock(t *testing.T) {
	nothingLeft(t)
	const asked = 10
	cmd := command(t, nil, "run", "-i", "--", "python3", "-u", "-c",
		"import sys, time\nprint('up')\nfor _ in sys.stdin: print(repr(time.time()))")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, guestOut := io.Pipe()
	cmd.Stdout = guestOut
	best := math.Inf(1)
	go func() {
		defer in.Close()
		lines := bufio.NewScanner(out)
		lines.Scan() // up
		for range asked {
			before := time.Now()
			if _, err := io.WriteString(in, "?\n"); err != nil || !lines.Scan() {
				return
			}
			after := time.Now()
			guest, err := strconv.ParseFloat(lines.Text(), 64)
			if err != nil {
				t.Errorf("answer %q", lines.Text())
				return
			}
			middle := before.Add(after.Sub(before) / 2)
			off := math.Abs(guest - float64(middle.UnixNano())/1e9)
			t.Logf("round trip %v, clock off by %.3f s", after.Sub(before), off)
			best = min(best, off)
		}
	}()
	finish(t, cmd).want(t, 0)
	if best > clockLimit.Seconds() {
		t.Errorf("the guest's clock is off by %.3f s at best, want at most %v", best, clockLimit)
	}
}

// TestConsoleOnRequest shows the guest's console when the guest dies and only if it was asked for.
func TestConsoleOnRequest(t *testing.T) {
	nothingLeft(t)
	crash := []string{"--", "sh", "-c", "sudo sh -c 'echo c >/proc/sysrq-trigger'; sleep 1000"}
	r := wrenn(t, append([]string{"run", "--console"}, crash...)...).want(t, 125)
	if !strings.Contains(r.errOut, "sysrq triggered crash") {
		t.Errorf("the console does not show the panic: %q", r.errOut)
	}
	if r := wrenn(t, append([]string{"run"}, crash...)...).want(t, 125); strings.Contains(r.errOut, "sysrq triggered crash") {
		t.Errorf("a silent guest has a console: %q", r.errOut)
	}
}
