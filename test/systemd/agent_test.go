//go:build hostboot

package systemd

import (
	"encoding/json"
	"strings"
	"testing"
)

// processes prints, for each machine and each pager, its cgroup, pid, start time, executable and limits.
const processes = `for g in /sys/fs/cgroup/wrenn/* /sys/fs/cgroup/wrenn-pager/*; do
	[ -d $g ] || continue
	for pid in $(cat $g/cgroup.procs); do
		echo $g $pid $(cut -d' ' -f22 /proc/$pid/stat) $(readlink /proc/$pid/exe) $(cat $g/memory.max $g/pids.max $g/cpu.max)
	done
done`

// record is what `wrenn ls --json` says of a sandbox.
type record struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Changes []struct {
		Reason string `json:"reason"`
	} `json:"changes"`
}

// records are the sandboxes by id.
func (h *host) records() map[string]record {
	h.t.Helper()
	var list []record
	if err := json.Unmarshal([]byte(h.sh("wrenn ls --json")), &list); err != nil {
		h.t.Fatal(err)
	}
	all := map[string]record{}
	for _, r := range list {
		all[r.ID] = r
	}
	return all
}

// create starts a sandbox that counts in memory, in a process whose pid is in a file in memory.
func (h *host) create() string {
	h.t.Helper()
	said := h.sh(`wrenn run --keep -- sh -c 'setsid sleep 100000 </dev/null >/dev/null 2>&1 & echo $! >/dev/shm/pid' 2>&1`)
	for _, word := range strings.Fields(said) {
		if strings.HasPrefix(word, "cl-") {
			return word
		}
	}
	h.t.Fatalf("no sandbox: %s", said)
	return ""
}

// alive fails the test unless the sandbox answers and its process runs on.
func (h *host) alive(id string) {
	h.t.Helper()
	h.sh("wrenn exec " + id + ` -- sh -c 'test "$(cat /proc/$(cat /dev/shm/pid)/comm)" = sleep'`)
}

// demanding starts a unit that needs every controller, and removes it.
const demanding = `unit=/run/systemd/system/demanding.service
printf '%s\n' '[Service]' Type=oneshot ExecStart=true CPUWeight=50 IOWeight=50 AllowedCPUs=0 MemoryMax=100M TasksMax=10 >$unit
systemctl daemon-reload; systemctl start demanding; rm $unit; systemctl daemon-reload`

// TestAgentUnderSystemd has systemd start, restart, kill and stop the agent, and restart the host. But for the last, the machines never
// notice: the same processes, in the same cgroups with the same limits, whatever systemd does to its own.
func TestAgentUnderSystemd(t *testing.T) {
	h := newHost(t)
	h.install()
	h.sh("systemctl start wrenn-agent && wrenn agent status") // it answers as soon as it is started
	running, paused := h.create(), h.create()
	before := h.sh(processes)
	if n := strings.Count(before, "\n") + 1; n != 4 {
		t.Errorf("there are %d processes, want a machine and a pager for each of two:\n%s", n, before)
	}
	if at := h.sh("cat /proc/$(systemctl show -P MainPID wrenn-agent)/cgroup"); at != "0::/wrenn.slice/wrenn-agent.service" {
		t.Errorf("the agent is in %s", at)
	}
	pid := h.sh("systemctl show -P MainPID wrenn-agent")
	for _, step := range []string{
		"systemctl daemon-reload",
		"systemctl restart wrenn-agent && wrenn agent status",
		"systemctl daemon-reexec",
		// A unit that needs other controllers than there are, and then no longer does, has systemd write those of the root.
		demanding,
		"kill -9 $(systemctl show -P MainPID wrenn-agent); until wrenn agent status 2>/dev/null; do sleep 0.2; done",
		"systemctl stop wrenn-agent; test $(systemctl show -P MainPID wrenn-agent) = 0; sleep 1",
		"systemctl start wrenn-agent && wrenn agent status",
	} {
		h.sh(step)
		if after := h.sh(processes); after != before {
			t.Errorf("%s: there was\n%s\nand there is\n%s", step, before, after)
		}
	}
	if again := h.sh("systemctl show -P MainPID wrenn-agent"); again == pid {
		t.Errorf("the agent was not restarted: pid %s", pid)
	}
	h.allOnOne(before)
	h.alive(running)
	h.alive(paused)
	h.sh("wrenn pause " + paused)
	h.restart()
	h.install()
	h.afterRestart(running, paused)
}

// answers waits for the REST API and asks it with the first key, which is in a file for root alone and not in the journal.
const answers = `until test "$(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/readyz)" = 200; do sleep 0.2; done
curl -sf -H "Authorization: Bearer $(cat /etc/wrenn/first-key)" http://127.0.0.1:8080/v1/sandboxes >/dev/null
test "$(stat -c %a:%u /etc/wrenn/first-key)" = 600:0
! journalctl -u wrenn-up | grep -F "$(cat /etc/wrenn/first-key)"`

// allOnOne has wrenn-up take the machines over from the agent and give them back. They do not notice, and no database stays behind.
func (h *host) allOnOne(before string) {
	h.t.Helper()
	for _, step := range []string{
		"systemctl start wrenn-up; test $(systemctl is-active wrenn-agent) = inactive;" + answers,
		"systemctl restart wrenn-up;" + answers,
		"kill -9 $(systemctl show -P MainPID wrenn-up); until wrenn agent status 2>/dev/null; do sleep 0.2; done;" + answers,
		"systemctl start wrenn-agent && wrenn agent status; test $(systemctl is-active wrenn-up) = inactive; ! pgrep -x postgres",
	} {
		h.sh(step)
		if after := h.sh(processes); after != before {
			h.t.Errorf("%s: there was\n%s\nand there is\n%s", step, before, after)
		}
	}
}

// serverAlone has a server run without any privilege on a database that is there, and this machine's agent join it: it asks for a token with the
// first key, which root alone can read.
func (h *host) serverAlone() {
	h.t.Helper()
	h.sh(`dir=/var/lib/wrenn/database bin=$(ls -d /usr/lib/postgresql/*/bin)
install -d -o postgres $dir; chmod a+x /var/lib/wrenn
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@" >/dev/null; }
as $bin/initdb -D $dir -A trust
as $bin/pg_ctl -D $dir -w -l $dir/log -o "-p 5433 -k $dir" start
echo 'WRENN_DATABASE_URL=postgresql://postgres@127.0.0.1:5433/postgres
WRENN_SERVER_FLAGS=--listen 127.0.0.1:8081 --hosts-listen 127.0.0.1:7444' >/etc/wrenn/server.env
systemctl start wrenn-server
test "$(ps -o user= -p $(systemctl show -P MainPID wrenn-server))" != root
test "$(grep CapEff /proc/$(systemctl show -P MainPID wrenn-server)/status | cut -f2)" = 0000000000000000
ask() { curl -sf -H "Authorization: Bearer $(cat /var/lib/wrenn-server/first-key)" "$@"; }
token=$(ask --json '{}' http://127.0.0.1:8081/v1/hosts/tokens | sed 's/.*"token":"\([^"]*\)".*/\1/')
systemctl stop wrenn-agent
echo "WRENN_AGENT_FLAGS=--join $token --listen 127.0.0.1:7443" >>/etc/wrenn/agent.env
systemctl start wrenn-agent
until ask http://127.0.0.1:8081/v1/hosts | grep -q '"state":"up"'; do sleep 0.2; done
systemctl restart wrenn-server
until curl -sf -o /dev/null http://127.0.0.1:8081/readyz; do sleep 0.2; done
systemctl stop wrenn-server wrenn-agent
as $bin/pg_ctl -D $dir -m fast stop; rm -r $dir`)
}

// afterRestart looks that what was paused goes on where it was, that what ran is lost and says why, and that nothing else is left.
func (h *host) afterRestart(running, paused string) {
	h.t.Helper()
	h.sh("systemctl start wrenn-agent && until wrenn agent status | grep -q lost; do sleep 0.2; done")
	all := h.records()
	lost := all[running]
	if lost.State != "lost" || len(lost.Changes) == 0 || !strings.Contains(lost.Changes[len(lost.Changes)-1].Reason, "the host was restarted") {
		h.t.Errorf("what ran is %+v", lost)
	}
	if all[paused].State != "paused" {
		h.t.Errorf("what was paused is %+v", all[paused])
	}
	h.sh("wrenn resume " + paused)
	h.alive(paused)
	h.sh("wrenn rm " + paused + " " + running)
	h.serverAlone()
	if left := h.sh("wrenn host sweep"); !strings.Contains(left, "nothing to sweep") || !strings.Contains(left, "left behind: nothing") {
		h.t.Errorf("a sweep finds %s", left)
	}
	h.sh("test ! -e /sys/fs/cgroup/wrenn && test ! -e /sys/fs/cgroup/wrenn-pager && test -z \"$(ls /run/netns)\"")
}
