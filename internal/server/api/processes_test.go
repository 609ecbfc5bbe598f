package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/rest"
)

// startProcess starts a command that goes on by itself.
func (w *world) startProcess(at string, command map[string]any) int64 {
	w.t.Helper()
	return as[rest.StartedProcess](w.t, w.do(call{method: "POST", path: at + "/processes", body: command}), 201).Pid
}

func (w *world) processes(at string) []rest.Process {
	w.t.Helper()
	return as[rest.ProcessList](w.t, w.do(call{method: "GET", path: at + "/processes"}), 200).Processes
}

// runs says whether a process does.
func (w *world) runs(at string, pid int64) bool {
	w.t.Helper()
	for _, p := range w.processes(at) {
		if p.Pid == pid {
			return true
		}
	}
	return false
}

// ends waits until a process does not run.
func (w *world) ends(at string, pid int64) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.runs(at, pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("process %d still runs", pid)
		}
	}
}

// followed is a command's output, as it comes.
type followed struct {
	t    *testing.T
	body io.Closer
	scan *bufio.Scanner
}

func (f followed) next() (e rest.CommandEvent) {
	f.t.Helper()
	if !f.scan.Scan() {
		f.t.Fatalf("the stream ended: %v", f.scan.Err())
	}
	if err := json.Unmarshal(f.scan.Bytes(), &e); err != nil {
		f.t.Fatal(err)
	}
	return e
}

func (w *world) follow(at string, pid int64) followed {
	w.t.Helper()
	req := w.request(w.t.Context(), call{method: "GET", path: fmt.Sprintf("%s/processes/%d/output", at, pid)})
	resp, err := w.HTTP.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	contract.check(w.t, req, resp, nil)
	f := followed{w.t, resp.Body, bufio.NewScanner(resp.Body)}
	if e := f.next(); e.Type != rest.Started || *e.Pid != pid {
		w.t.Fatalf("%+v comes first", e)
	}
	return f
}

// steer is a POST to a process.
func (w *world) steer(at string, pid int64, what, body string) answer {
	w.t.Helper()
	return w.do(call{method: "POST", path: fmt.Sprintf("%s/processes/%d/%s", at, pid, what), body: body})
}

// TestProcesses steers a command that nobody follows, joins it, leaves it, and joins it again.
func TestProcesses(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	script := `while read -r l; do printf 'got %s \377\n' "$l"; done; sleep 1000`
	pid := w.startProcess(at, map[string]any{"cmd": "sh", "args": []string{"-c", script}, "stdin": true})
	if list := w.processes(at); len(list) != 1 || list[0].Pid != pid || list[0].Cmd != "sh" || len(list[0].Args) != 2 || list[0].Args[1] != script {
		t.Fatalf("%+v", list)
	}
	for range 2 {
		out := w.follow(at, pid)
		as[struct{}](t, w.steer(at, pid, "stdin", `{"input":{"encoding":"utf-8","data":"one\n"}}`), 204)
		if e := out.next(); e.Type != rest.Stdout || *e.Encoding != rest.EncodingBase64 || *e.Data != "Z290IG9uZSD/Cg==" {
			t.Errorf("%+v", e)
		}
		out.body.Close()
	}
	out := w.follow(at, pid)
	as[struct{}](t, w.steer(at, pid, "stdin", `{"eof":true}`), 204)
	fails(t, w.steer(at, pid, "stdin", `{"input":{"encoding":"utf-8","data":"late"}}`), 409, rest.FailedPrecondition)
	fails(t, w.steer(at, pid, "resize", `{"cols":80,"rows":24}`), 409, rest.FailedPrecondition)
	as[struct{}](t, w.steer(at, pid, "signal", `{"signal":"SIGTERM"}`), 204)
	if !w.runs(at, pid) {
		t.Error("the shell, which waits, is gone at once") // it ends with what it waits for
	}
	as[struct{}](t, w.steer(at, pid, "signal", `{"signal":"SIGKILL"}`), 204)
	if e := out.next(); e.Type != rest.Ended || *e.ExitCode != -1 || e.Signal == nil {
		t.Errorf("%+v", e)
	}
	for _, what := range []string{"stdin", "signal", "resize"} {
		body := map[string]string{"stdin": `{"input":{"encoding":"utf-8","data":"x"}}`, "signal": `{"signal":"SIGKILL"}`, "resize": `{"cols":1,"rows":1}`}[what]
		fails(t, w.steer(at, 1<<30, what, body), 404, rest.NotFound)
	}
	fails(t, w.do(call{method: "GET", path: at + "/processes/1073741824/output"}), 404, rest.NotFound)
}

// TestAProcessWithATerminal is steered as one without.
func TestAProcessWithATerminal(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	pid := w.startProcess(at, map[string]any{"cmd": "sh", "args": []string{"-c", "stty -echo; read -r l; stty size; cat"}, "pty": map[string]int{"cols": 9, "rows": 8}})
	out := w.follow(at, pid)
	as[struct{}](t, w.steer(at, pid, "resize", `{"cols":132,"rows":43}`), 204)
	as[struct{}](t, w.steer(at, pid, "stdin", `{"input":{"encoding":"utf-8","data":"now\n"},"eof":true}`), 204)
	shown := ""
	for {
		e := out.next()
		if e.Type == rest.Ended {
			if *e.ExitCode != 0 || !strings.Contains(shown, "43 132") {
				t.Errorf("%+v after %q", e, shown)
			}
			return
		}
		if e.Type == rest.Broken {
			t.Fatalf("%+v after %q", *e.Error, shown)
		}
		shown += or(e.Data)
	}
}

func TestAProcessIsStartedOnce(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	var pids []int64
	for range 2 {
		a := w.do(call{method: "POST", path: at + "/processes", body: `{"cmd":"sleep","args":["1000"]}`, header: map[string]string{"Idempotency-Key": "k"}})
		pids = append(pids, as[rest.StartedProcess](t, a, 201).Pid)
	}
	if pids[0] != pids[1] || len(w.processes(at)) != 1 {
		t.Errorf("%v, and there are %+v", pids, w.processes(at))
	}
	short := w.startProcess(at, map[string]any{"cmd": "sleep", "args": []string{"1000"}, "timeout_ms": 1})
	w.ends(at, short)
	fails(t, w.do(call{method: "POST", path: at + "/processes", body: `{"cmd":"no-such-program"}`}), 400, rest.InvalidArgument)
	fails(t, w.do(call{method: "POST", path: at + "/processes", body: `{"cmd":"sh","user":"nobody-here"}`}), 400, rest.InvalidArgument)
}

// TestASandboxGoesWithItsProcesses, and who follows one is told.
func TestASandboxGoesWithItsProcesses(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	out := w.follow(at, w.startProcess(at, map[string]any{"cmd": "sleep", "args": []string{"1000"}}))
	as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	if e := out.next(); e.Type != rest.Broken || e.Error == nil || e.Error.Code != rest.Unavailable && e.Error.Code != rest.FailedPrecondition {
		t.Errorf("%+v", e)
	}
}

// TestAStreamedCommandTakesMoreInput: what it writes is seen from its beginning, and its input comes as it runs.
func TestAStreamedCommandTakesMoreInput(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	resp, err := w.HTTP.Client().Do(w.request(t.Context(), call{method: "POST", path: at + "/exec/stream",
		body: map[string]any{"cmd": "sh", "args": []string{"-c", "echo ready; cat; exit 4"}, "more_stdin": true}}))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	f := followed{t, resp.Body, bufio.NewScanner(resp.Body)}
	started := f.next()
	if e := f.next(); started.Type != rest.Started || *e.Data != "ready\n" {
		t.Fatalf("%+v, %+v", started, e)
	}
	as[struct{}](t, w.steer(at, *started.Pid, "stdin", `{"input":{"encoding":"utf-8","data":"one"}}`), 204)
	if e := f.next(); *e.Data != "one" {
		t.Errorf("%+v", e)
	}
	as[struct{}](t, w.steer(at, *started.Pid, "stdin", `{"eof":true}`), 204)
	if e := f.next(); e.Type != rest.Ended || *e.ExitCode != 4 {
		t.Errorf("%+v", e)
	}
}
