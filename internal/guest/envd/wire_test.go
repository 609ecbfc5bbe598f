package envd

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

var number = regexp.MustCompile(`"pid":\d+`)

// run starts a command and returns its events, the pid replaced.
func run(t *testing.T, url, request string, header map[string]string) []string {
	t.Helper()
	status, h, body := call(t, url, "Start", streamJSON, envelope(0, request), header)
	if status != http.StatusOK || h.Get("Content-Type") != streamJSON {
		t.Fatalf("status %d, type %q, body %q", status, h.Get("Content-Type"), body)
	}
	var list []string
	for _, f := range frames(t, body) {
		list = append(list, fmt.Sprintf("%02x %s", f.flags, number.ReplaceAllString(f.json, `"pid":42`)))
	}
	return list
}

// TestStartOnTheWire holds the shapes that the SDKs read, byte for byte but for spaces.
func TestStartOnTheWire(t *testing.T) {
	url := serve(t, identity())
	const started = `00 {"event":{"start":{"pid":42}}}`
	for _, c := range []struct {
		name, request string
		header        map[string]string
		want          []string
	}{
		{
			name:    "the documented example",
			request: `{"process":{"cmd":"/bin/sh","args":["-c","echo hi"],"envs":{"X":"1"},"cwd":"/tmp"},"stdin":false}`,
			header:  map[string]string{"Connect-Timeout-Ms": "60000", "Keepalive-Ping-Interval": "50", "Connect-Protocol-Version": "1"},
			want: []string{started, `00 {"event":{"data":{"stdout":"aGkK"}}}`,
				`00 {"event":{"end":{"exited":true,"status":"exit status 0"}}}`, `02 {}`},
		},
		{
			name:    "stderr, exit code, snake case",
			request: `{"process":{"cmd":"sh","args":["-c","echo hi >&2; exit 3"]},"stdin":false,"pty":null}`,
			want: []string{started, `00 {"event":{"data":{"stderr":"aGkK"}}}`,
				`00 {"event":{"end":{"exitCode":3,"exited":true,"status":"exit status 3","error":"exit status 3"}}}`, `02 {}`},
		},
		{
			name:    "signal",
			request: `{"process":{"cmd":"sh","args":["-c","kill -9 $$"]}}`,
			want: []string{started,
				`00 {"event":{"end":{"exitCode":-1,"status":"signal: killed","error":"signal: killed"}}}`, `02 {}`},
		},
		{
			name:    "terminal",
			request: `{"process":{"cmd":"stty","args":["size"]},"pty":{"size":{"cols":80,"rows":24}}}`,
			want: []string{started, `00 {"event":{"data":{"pty":"MjQgODANCg=="}}}`,
				`00 {"event":{"end":{"exited":true,"status":"exit status 0"}}}`, `02 {}`},
		},
		{
			name:    "no such folder",
			request: `{"process":{"cmd":"sh","cwd":"/nope"}}`,
			want:    []string{`02 {"error":{"code":"invalid_argument","message":"cwd '/nope' does not exist"}}`},
		},
		{
			name:    "no such user",
			request: `{"process":{"cmd":"sh"}}`,
			header:  map[string]string{"Authorization": "Basic bm9ib2R5LWhlcmU6"},
			want:    []string{`02 {"error":{"code":"unauthenticated","message":"invalid username: 'nobody-here'"}}`},
		},
		{
			name:    "deadline",
			request: `{"process":{"cmd":"sleep","args":["1000"]}}`,
			header:  map[string]string{"Connect-Timeout-Ms": "100"},
			want: []string{started,
				`02 {"error":{"code":"deadline_exceeded","message":"the command's deadline came and it was killed"}}`},
		},
		{
			name:    "a timeout of zero is none",
			request: `{"process":{"cmd":"sleep","args":["0.3"]}}`,
			header:  map[string]string{"Connect-Timeout-Ms": "0"},
			want:    []string{started, `00 {"event":{"end":{"exited":true,"status":"exit status 0"}}}`, `02 {}`},
		},
		{
			name:    "a negative timeout is none",
			request: `{"process":{"cmd":"sleep","args":["0.3"]}}`,
			header:  map[string]string{"Connect-Timeout-Ms": "-1"},
			want:    []string{started, `00 {"event":{"end":{"exited":true,"status":"exit status 0"}}}`, `02 {}`},
		},
		{
			name:    "another token",
			request: `{"process":{"cmd":"sh"}}`,
			header:  map[string]string{headerToken: "wrong"},
			want: []string{`02 {"error":{"code":"unauthenticated","message":"unauthorized access, please provide a valid access ` +
				`token or method signing if supported"}}`},
		},
		{
			name:    "user by name",
			request: `{"process":{"cmd":"sh","args":["-c","test $USER.$LOGNAME = user.user"]}}`,
			header:  map[string]string{"Authorization": "Basic dXNlcjo="},
			want:    []string{started, `00 {"event":{"end":{"exited":true,"status":"exit status 0"}}}`, `02 {}`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(run(t, url, c.request, c.header), "\n")
			if want := strings.Join(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestUnaryOnTheWire(t *testing.T) {
	url := serve(t, identity())
	none := `"process with pid 4194303 not found"`
	for _, c := range []struct {
		method, request string
		status          int
		want            string
	}{
		{"List", `{}`, 200, `{}`},
		{"SendSignal", `{"process":{"pid":4194303},"signal":"SIGNAL_SIGKILL"}`, 404, `{"code":"not_found","message":` + none + `}`},
		{"SendInput", `{"process":{"pid":4194303},"input":{"stdin":"aGk="}}`, 404, `{"code":"not_found","message":` + none + `}`},
		{"CloseStdin", `{"process":{"pid":4194303}}`, 404, `{"code":"not_found","message":` + none + `}`},
		{"Update", `{"process":{"pid":4194303},"pty":{"size":{"cols":1,"rows":1}}}`, 404, `{"code":"not_found","message":` + none + `}`},
		{"Update", `{"process":{"tag":"x"}}`, 404, `{"code":"not_found","message":"process with tag 'x' not found"}`},
		{"Update", `{"process":{"pid":4294967295}}`, 404, `{"code":"not_found","message":"process with pid 4294967295 not found"}`},
		{"Update", `{}`, 400, `{"code":"invalid_argument","message":"a process is selected by pid or tag; neither is there"}`},
	} {
		if status, body := unary(t, url, c.method, c.request); status != c.status || body != c.want {
			t.Errorf("%s %s: got %d %s", c.method, c.request, status, body)
		}
	}
	for _, bad := range []string{`{`, `[]`, `{"process":7}`, "\xff"} {
		if status, body := unary(t, url, "Update", bad); status != 400 || !strings.Contains(body, `"invalid_argument"`) {
			t.Errorf("%q: got %d %s", bad, status, body)
		}
	}
	if status, body := unary(t, url, "SendInput", `{"process":{"pid":1},"input":{"stdin":"`+strings.Repeat("A", maxMessage)+`"}}`); status != 429 {
		t.Errorf("a message over the limit: got %d %.200s", status, body)
	}
	if status, body := unary(t, url, "NoSuch", `{}`); status != 404 {
		t.Errorf("no such method: got %d %s", status, body)
	}
}

// TestLife goes through the life of one process from several connections.
func TestLife(t *testing.T) {
	url := serve(t, identity())
	first, cancel := begin(t, url, "Start",
		`{"process":{"cmd":"sh","args":["-c","while read l; do echo \"<$l>\"; done; exit 5"],"envs":{"K":"v"},"cwd":"/"},"tag":"loop"}`, nil)
	pid := first.pid()
	listed := fmt.Sprintf(`{"processes":[{"config":{"cmd":"sh","args":["-c","while read l; do echo \"<$l>\"; done; exit 5"],`+
		`"envs":{"K":"v"},"cwd":"/"},"pid":%d,"tag":"loop"}]}`, pid)
	if status, body := unary(t, url, "List", `{}`); status != 200 || compact(t, body) != listed {
		t.Errorf("list: got %d %s, want %s", status, body, listed)
	}
	second, _ := begin(t, url, "Connect", `{"process":{"tag":"loop"}}`, nil)
	if got := second.pid(); got != pid {
		t.Errorf("connect by tag: pid %d, want %d", got, pid)
	}
	send := func(text string) {
		t.Helper()
		if status, body := unary(t, url, "SendInput", fmt.Sprintf(`{"process":{"pid":%d},"input":{"stdin":%q}}`, pid, text)); status != 200 || body != `{}` {
			t.Errorf("input: got %d %s", status, body)
		}
	}
	send("YQo=") // a
	for _, e := range []*events{first, second} {
		if f := e.next(); f.json != `{"event":{"data":{"stdout":"PGE+Cg=="}}}` {
			t.Errorf("got %s", f.json)
		}
	}
	cancel() // the client goes away; the process does not
	status, _, body := call(t, url, "StreamInput", streamJSON,
		envelope(0, fmt.Sprintf(`{"start":{"process":{"pid":%d}}}`, pid))+envelope(0, `{"keepalive":{}}`)+
			envelope(0, `{"data":{"input":{"stdin":"Yg=="}}}`)+envelope(0, `{"data":{"input":{"stdin":"Ygo="}}}`), nil)
	if got := frames(t, body); status != 200 || len(got) != 2 || got[0].json != `{}` || got[1] != (frame{2, `{}`}) {
		t.Errorf("stream input: got %d %q", status, body)
	}
	if f := second.next(); f.json != `{"event":{"data":{"stdout":"PGJiPgo="}}}` {
		t.Errorf("got %s", f.json)
	}
	if status, body := unary(t, url, "SendInput", fmt.Sprintf(`{"process":{"pid":%d},"input":{"pty":"YQo="}}`, pid)); status != 400 {
		t.Errorf("input for a terminal: got %d %s", status, body)
	}
	if status, body := unary(t, url, "CloseStdin", fmt.Sprintf(`{"process":{"pid":%d}}`, pid)); status != 200 || body != `{}` {
		t.Errorf("close: got %d %s", status, body)
	}
	end := frame{0, `{"event":{"end":{"exitCode":5,"exited":true,"status":"exit status 5","error":"exit status 5"}}}`}
	if f := second.next(); f != end {
		t.Errorf("got %v", f)
	}
	if f := second.next(); f != (frame{2, `{}`}) {
		t.Errorf("got %v", f)
	}
	late, _ := begin(t, url, "Connect", fmt.Sprintf(`{"process":{"pid":%d}}`, pid), nil)
	if late.pid() != pid {
		t.Error("late connect: another pid")
	}
	if f := late.next(); f != end {
		t.Errorf("late connect: got %v", f)
	}
}

func TestStreamInputRefused(t *testing.T) {
	url := serve(t, identity())
	for _, c := range []struct{ body, want string }{
		{`{"data":{"input":{"stdin":"Yg=="}}}`, `{"error":{"code":"invalid_argument","message":"the first message must be start, with the process"}}`},
		{`{}`, `{"error":{"code":"invalid_argument","message":"a message is start, data or keepalive; none is there"}}`},
		{`{"start":{"process":{"tag":"x"}}}`, `{"error":{"code":"not_found","message":"process with tag 'x' not found"}}`},
	} {
		_, _, body := call(t, url, "StreamInput", streamJSON, envelope(0, c.body), nil)
		if got := frames(t, body); len(got) != 1 || got[0] != (frame{2, c.want}) {
			t.Errorf("%s: got %q", c.body, body)
		}
	}
}

func TestSignals(t *testing.T) {
	url := serve(t, identity())
	e, _ := begin(t, url, "Start", `{"process":{"cmd":"sleep","args":["1000"]}}`, nil)
	pid := e.pid()
	if status, body := unary(t, url, "SendSignal", fmt.Sprintf(`{"process":{"pid":%d}}`, pid)); status != 400 {
		t.Errorf("no signal: got %d %s", status, body)
	}
	if status, body := unary(t, url, "SendSignal", fmt.Sprintf(`{"process":{"pid":%d},"signal":15}`, pid)); status != 200 || body != `{}` {
		t.Errorf("got %d %s", status, body)
	}
	if f := e.next(); f.json != `{"event":{"end":{"exitCode":-1,"status":"signal: terminated","error":"signal: terminated"}}}` {
		t.Errorf("got %s", f.json)
	}
}

func TestKeepalive(t *testing.T) {
	url := serve(t, identity())
	e, _ := begin(t, url, "Start", `{"process":{"cmd":"sleep","args":["1000"]}}`, map[string]string{"Keepalive-Ping-Interval": "1"})
	e.pid()
	began := time.Now()
	for range 2 {
		if f := e.next(); f.json != `{"event":{"keepalive":{}}}` {
			t.Errorf("got %s", f.json)
		}
	}
	if d := time.Since(began); d < 1500*time.Millisecond {
		t.Errorf("two keepalives came within %v", d)
	}
}

// TestConnectDeadline shows that the deadline of Connect is the stream's, not the process's.
func TestConnectDeadline(t *testing.T) {
	url := serve(t, identity())
	e, _ := begin(t, url, "Start", `{"process":{"cmd":"sleep","args":["1000"]},"tag":"s"}`, nil)
	e.pid()
	c, _ := begin(t, url, "Connect", `{"process":{"tag":"s"}}`, map[string]string{"Connect-Timeout-Ms": "50"})
	c.pid()
	if f := c.next(); f.flags != 2 || !strings.Contains(f.json, `"code":"deadline_exceeded"`) {
		t.Errorf("got %v", f)
	}
	if _, body := unary(t, url, "List", `{}`); !strings.Contains(body, `"sleep"`) {
		t.Errorf("the process is gone: %s", body)
	}
}
