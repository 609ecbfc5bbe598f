package api_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/api"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
)

const nobody = "cl-0123456789abcdefghij"

func TestALife(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base","metadata":{"user":"ann"},"ttl_seconds":3600,"on_expiry":"pause"}`)
	if sb.State != rest.Running || sb.Reason == "" || sb.Vcpus != 1 || sb.MemoryMib != 256 || !sb.Internet || sb.Metadata["user"] != "ann" ||
		sb.TTLSeconds != 3600 || sb.OnExpiry != rest.Pause {
		t.Errorf("%+v", sb)
	}
	at := "/v1/sandboxes/" + sb.ID
	if got := as[rest.Sandbox](t, w.do(call{method: "POST", path: at + "/pause"}), 200); got.State != rest.Paused {
		t.Errorf("%+v", got)
	}
	fails(t, w.do(call{method: "POST", path: at + "/pause"}), 409, rest.FailedPrecondition)
	fails(t, w.do(call{method: "POST", path: at + "/exec", body: `{"cmd":"cat"}`}), 409, rest.FailedPrecondition)
	if got := as[rest.Sandbox](t, w.do(call{method: "POST", path: at + "/resume"}), 200); got.State != rest.Running {
		t.Errorf("%+v", got)
	}
	got := as[rest.Sandbox](t, w.do(call{method: "PATCH", path: at, body: `{"ttl_seconds":0,"metadata":{"user":"bob"}}`}), 200)
	if got.TTLSeconds != 0 || got.OnExpiry != rest.Destroy || got.Metadata["user"] != "bob" {
		t.Errorf("%+v", got)
	}
	forked := as[rest.Fork](t, w.do(call{method: "POST", path: at + "/fork", body: `{"count":2}`}), 201)
	if len(forked.Clones) != 2 || forked.Clones[1].Sandbox == nil || forked.Clones[1].Sandbox.Metadata["user"] != "bob" {
		t.Fatalf("%+v", forked)
	}
	if clone := w.get(forked.Clones[0].Sandbox.ID); clone.State != rest.Running || clone.MemoryMib != 256 {
		t.Errorf("%+v", clone)
	}
	for range 2 {
		as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	}
	if got := w.get(sb.ID); got.State != rest.Stopped || got.Reason != "asked for" {
		t.Errorf("%+v", got)
	}
	fails(t, w.do(call{method: "POST", path: at + "/resume"}), 409, rest.FailedPrecondition)
	fails(t, w.do(call{method: "PATCH", path: at, body: `{"metadata":{}}`}), 409, rest.FailedPrecondition)
}

func TestSnapshots(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base"}`)
	at := "/v1/sandboxes/" + sb.ID + "/snapshots"
	for _, name := range []string{"b", "a", "c"} {
		n := as[rest.Snapshot](t, w.do(call{method: "POST", path: at, body: map[string]string{"name": name}}), 201)
		if n.Name != name || n.SandboxID != sb.ID || n.Template != "base" {
			t.Errorf("%+v", n)
		}
	}
	fails(t, w.do(call{method: "POST", path: at, body: `{"name":"a"}`}), 409, rest.AlreadyExists)
	page := as[rest.SnapshotPage](t, w.do(call{method: "GET", path: "/v1/snapshots?limit=2"}), 200)
	if len(page.Snapshots) != 2 || page.Snapshots[0].Name != "a" || page.NextCursor == nil {
		t.Fatalf("%+v", page)
	}
	page = as[rest.SnapshotPage](t, w.do(call{method: "GET", path: "/v1/snapshots?cursor=" + *page.NextCursor}), 200)
	if len(page.Snapshots) != 1 || page.NextCursor != nil {
		t.Errorf("%+v", page)
	}
	from := w.create(`{"snapshot":"a"}`)
	if from.SnapshotID == nil || from.MemoryMib != 256 || from.Template != "base" {
		t.Errorf("%+v", from)
	}
	if e := fails(t, w.do(call{method: "DELETE", path: "/v1/snapshots/a"}), 409, rest.FailedPrecondition); !strings.Contains(e.Message, from.ID) {
		t.Errorf("it does not say who uses it: %s", e.Message)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + from.ID}), 204)
	as[rest.Snapshot](t, w.do(call{method: "GET", path: "/v1/snapshots/a"}), 200)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/snapshots/a"}), 204)
	fails(t, w.do(call{method: "GET", path: "/v1/snapshots/a"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "DELETE", path: "/v1/snapshots/a"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"snapshot":"a"}`}), 404, rest.NotFound)
}

func TestLists(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	var ids []string
	for i := range 5 {
		ids = append(ids, w.create(fmt.Sprintf(`{"template":"base","metadata":{"n":"%d","all":"a=b"}}`, i)).ID)
	}
	slices.Reverse(ids)
	var got []string
	for cursor := ""; ; {
		page := as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes?limit=2&cursor=" + cursor}), 200)
		for _, sb := range page.Sandboxes {
			got = append(got, sb.ID)
		}
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	if !slices.Equal(got, ids) {
		t.Errorf("got %v, want the newest first: %v", got, ids)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + ids[0]}), 204)
	as[rest.Sandbox](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + ids[1] + "/pause"}), 200)
	for query, want := range map[string][]string{
		"":                                ids[1:],
		"?state=stopped":                  ids[:1],
		"?state=paused&state=stopped":     ids[:2],
		"?metadata=n%3D2":                 {ids[2]},
		"?metadata=all%3Da%3Db":           ids[1:],
		"?metadata=n%3D2&metadata=n%3D2":  {ids[2]},
		"?metadata=n%3D1&state=paused":    nil,
		"?metadata=none%3D&state=running": nil,
	} {
		page := as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes" + query}), 200)
		var got []string
		for _, sb := range page.Sandboxes {
			got = append(got, sb.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", query, got, want)
		}
	}
}

func TestTemplates(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	list := as[rest.TemplateList](t, w.do(call{method: "GET", path: "/v1/templates"}), 200).Templates
	if len(list) != 1 || list[0].Name != "base" || list[0].Vcpus != 1 || list[0].MemoryMib != 256 || list[0].ID == "" {
		t.Errorf("%+v", list)
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	made := as[rest.NewKey](t, w.do(call{method: "POST", path: "/v1/keys", body: `{"name":"ci","scopes":["read"],"expires_at":"2999-01-01T00:00:00Z"}`}), 201)
	if !strings.HasPrefix(made.Key, made.Info.Prefix) || made.Info.ExpiresAt == nil {
		t.Errorf("%+v", made)
	}
	as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes", key: made.Key}), 200)
	for _, c := range []call{{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`}, {method: "GET", path: "/v1/keys"}} {
		c.key = made.Key
		fails(t, w.do(c), 403, rest.PermissionDenied)
	}
	if list := as[rest.KeyPage](t, w.do(call{method: "GET", path: "/v1/keys"}), 200); len(list.Keys) != 2 {
		t.Errorf("%+v", list)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/keys/" + made.Info.ID}), 204)
	fails(t, w.do(call{method: "GET", path: "/v1/sandboxes", key: made.Key}), 401, rest.Unauthenticated)
	fails(t, w.do(call{method: "POST", path: "/v1/keys", body: `{"name":"ci","scopes":["read"],"expires_at":"1999-01-01T00:00:00Z"}`}), 400, rest.InvalidArgument)
}

func TestCommands(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID + "/exec"
	odd := base64.StdEncoding.EncodeToString([]byte{0xff, 0, 'a'})
	for _, in := range []rest.Text{{Encoding: rest.EncodingUTF8, Data: "grüße\n"}, {Encoding: rest.EncodingBase64, Data: odd}} {
		r := as[rest.CommandResult](t, w.do(call{method: "POST", path: at, body: map[string]any{"cmd": "cat", "stdin": in}}), 200)
		if r.ExitCode != 3 || r.Stdout != in || r.Stderr != in || r.StdoutTruncated || r.Status != "exit status 3" {
			t.Errorf("%+v", r)
		}
	}
	r := as[rest.CommandResult](t, w.do(call{method: "POST", path: at, body: `{"cmd":"flood"}`}), 200)
	if len(r.Stdout.Data) != 1<<20 || !r.StdoutTruncated || r.StderrTruncated {
		t.Errorf("%d bytes, %v", len(r.Stdout.Data), r.StdoutTruncated)
	}
	fails(t, w.do(call{method: "POST", path: at, body: `{"cmd":"sleep","timeout_ms":1}`}), 504, rest.DeadlineExceeded)
	fails(t, w.do(call{method: "POST", path: at, body: `{"cmd":"cat","stdin":{"encoding":"base64","data":"?"}}`}), 400, rest.InvalidArgument)
}

// lines reads a stream of events.
func lines(t *testing.T, a answer) []rest.CommandEvent {
	t.Helper()
	if a.status != 200 || a.header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var list []rest.CommandEvent
	for line := range bytes.Lines(a.body) {
		var e rest.CommandEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestStreamedCommands(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID + "/exec/stream"
	got := lines(t, w.do(call{method: "POST", path: at, body: `{"cmd":"cat","stdin":{"encoding":"base64","data":"/w=="}}`}))
	if len(got) != 4 || got[0].Type != rest.Started || *got[0].Pid != 7 || *got[1].Encoding != rest.EncodingBase64 || *got[1].Data != "/w==" ||
		got[3].Type != rest.Ended || *got[3].ExitCode != 3 {
		t.Errorf("%+v", got)
	}
	got = lines(t, w.do(call{method: "POST", path: at, body: `{"cmd":"break"}`}))
	if last := got[len(got)-1]; last.Type != rest.Broken || last.Error == nil || last.Error.Code == "" {
		t.Errorf("%+v", got)
	}
	if e := fails(t, w.do(call{method: "POST", path: at, body: `{"cmd":"none"}`}), 500, rest.Internal); strings.Contains(e.Message, "no such command") {
		t.Errorf("what went wrong inside is told: %s", e.Message)
	}
	fails(t, w.do(call{method: "POST", path: at, body: `{"cmd":"cat"}`, header: map[string]string{"Idempotency-Key": "k"}}), 400, rest.InvalidArgument)
}

func TestWhatIsRefused(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes"
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name  string
		call  call
		field string
	}{
		{"an unknown field", call{method: "POST", path: at, body: `{"template":"base","colour":"red"}`}, "colour"},
		{"an unknown field below", call{method: "POST", path: at + "/" + nobody + "/exec", body: `{"cmd":"a","stdin":{"encoding":"utf-8","data":"","x":1}}`}, "stdin.x"},
		{"a wrong type", call{method: "POST", path: at, body: `{"template":7}`}, "template"},
		{"null", call{method: "POST", path: at, body: `{"template":null}`}, "template"},
		{"too many", call{method: "POST", path: at, body: `{"template":"base","vcpus":1000}`}, "vcpus"},
		{"nothing to start from", call{method: "POST", path: at, body: `{}`}, "template"},
		{"two to start from", call{method: "POST", path: at, body: `{"template":"base","snapshot":"s"}`}, "template"},
		{"a snapshot's sizes", call{method: "POST", path: at, body: `{"snapshot":"s","vcpus":2}`}, "snapshot"},
		{"a key's name that can't be kept", call{method: "POST", path: "/v1/keys", body: `{"name":"a\u0000","scopes":["read"]}`}, "name"},
		{"a disk too large", call{method: "POST", path: at, body: `{"template":"base","disk_bytes":8796093022209}`}, "disk_bytes"},
		{"the host's word", call{method: "POST", path: at, body: `{"template":"base","memory_mib":1}`}, "memory_mib"},
		{"no JSON", call{method: "POST", path: at, body: `{"template":`}, "body"},
		{"more than JSON", call{method: "POST", path: at, body: `{"template":"base"} {}`}, "body"},
		{"no body", call{method: "POST", path: at}, "body"},
		{"a body where none is", call{method: "POST", path: at + "/" + nobody + "/pause", body: `{}`}, "body"},
		{"input to come where nobody learns the pid", call{method: "POST", path: at + "/" + nobody + "/exec", body: `{"cmd":"a","more_stdin":true}`}, "more_stdin"},
		{"two ways of input", call{method: "POST", path: at + "/" + nobody + "/exec/stream", body: `{"cmd":"a","more_stdin":true,"stdin":{"encoding":"utf-8","data":""}}`}, "more_stdin"},
		{"a long name", call{method: "POST", path: at, body: `{"template":"base","metadata":{"` + long + `":""}}`}, "metadata"},
		{"a long value", call{method: "POST", path: at, body: `{"template":"base","metadata":{"a":"` + long + `"}}`}, "metadata.a"},
		{"half a time to live", call{method: "PATCH", path: at + "/" + nobody, body: `{"on_expiry":"pause"}`}, "on_expiry"},
		{"nothing to change", call{method: "PATCH", path: at + "/" + nobody, body: `{}`}, "body"},
		{"no id", call{method: "GET", path: at + "/cl-x"}, "id"},
		{"a long id", call{method: "GET", path: at + "/cl-" + strings.Repeat("0", 5000)}, "id"},
		{"an unknown parameter", call{method: "GET", path: at + "?colour=red"}, "colour"},
		{"a number that is none", call{method: "GET", path: at + "?limit=many"}, "limit"},
		{"a page too long", call{method: "GET", path: at + "?limit=100000"}, "limit"},
		{"a state that is none", call{method: "GET", path: at + "?state=asleep"}, "state.0"},
		{"no cursor", call{method: "GET", path: at + "?cursor=AAAA"}, "cursor"},
		{"a long key", call{method: "POST", path: at, body: `{"template":"base"}`, header: map[string]string{"Idempotency-Key": long}}, "Idempotency-Key"},
		{"an event that is none", call{method: "GET", path: "/v1/events", header: map[string]string{"Last-Event-ID": "x"}}, "Last-Event-ID"},
		{"a snapshot's name", call{method: "GET", path: "/v1/snapshots/UP"}, "name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			e := fails(t, w.do(c.call), 400, rest.InvalidArgument)
			if e.Field == nil || *e.Field != c.field || e.Fix == nil || *e.Fix == "" {
				t.Errorf("field %q, want %q, in %+v", or(e.Field), c.field, e)
			}
		})
	}
}

func or(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func TestOtherErrors(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 1})
	id := w.create(`{"template":"base"}`).ID
	for _, c := range []struct {
		name   string
		call   call
		status int
		code   rest.ErrorCode
	}{
		{"no key", call{method: "GET", path: "/v1/sandboxes", key: "none"}, 401, rest.Unauthenticated},
		{"a bad key", call{method: "GET", path: "/v1/sandboxes", key: "wrenn_x"}, 401, rest.Unauthenticated},
		{"no such sandbox", call{method: "GET", path: "/v1/sandboxes/" + nobody}, 404, rest.NotFound},
		{"no such template", call{method: "POST", path: "/v1/sandboxes", body: `{"template":"none"}`}, 404, rest.NotFound},
		{"no such path", call{method: "GET", path: "/v1/nothing"}, 404, rest.NotFound},
		{"no such method", call{method: "DELETE", path: "/v1/sandboxes"}, 405, rest.MethodNotAllowed},
		{"no such method, where another path has an id", call{method: "GET", path: "/v1/hosts/tokens"}, 405, rest.MethodNotAllowed},
		{"an odd method", call{method: "BREW", path: "/v1/sandboxes"}, 405, rest.MethodNotAllowed},
		{"too large", call{method: "POST", path: "/v1/sandboxes", body: `{"template":"` + strings.Repeat("x", 3<<20) + `"}`}, 413, rest.TooLarge},
		{"no room", call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`}, 429, rest.ResourceExhausted},
		{"it runs", call{method: "POST", path: "/v1/sandboxes/" + id + "/resume"}, 409, rest.FailedPrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			fails(t, w.do(c.call), c.status, c.code)
		})
	}
	w.t = t
	list := as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes?state=failed"}), 200)
	if len(list.Sandboxes) != 0 {
		t.Errorf("what was refused before anything was asked of a host is on record: %+v", list)
	}
}

// TestAnswersWithoutAKey are those that everybody gets.
func TestAnswersWithoutAKey(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	as[rest.Health](t, w.do(call{method: "GET", path: "/healthz", key: "none"}), 200)
	as[rest.Health](t, w.do(call{method: "GET", path: "/readyz", key: "none"}), 200)
	doc := as[map[string]any](t, w.do(call{method: "GET", path: "/v1/openapi.json", key: "none"}), 200)
	for path := range contract.spec.Paths.Map() {
		if doc["paths"].(map[string]any)[path] == nil {
			t.Errorf("%s is not in the document that is served", path)
		}
	}
	nowhere := client.Unix(filepath.Join(t.TempDir(), "none"))
	defer nowhere.Close()
	handler, err := api.New(api.Config{Store: w.Store, Auth: w.Auth, Log: slog.New(slog.DiscardHandler),
		Control: control.New(w.Store, control.Host{ID: "ho-none", Client: nowhere}, slog.New(slog.DiscardHandler))})
	if err != nil {
		t.Fatal(err)
	}
	w.HTTP.Config.Handler = handler
	fails(t, w.do(call{method: "GET", path: "/readyz", key: "none"}), 503, rest.Unavailable)
	as[rest.Health](t, w.do(call{method: "GET", path: "/healthz", key: "none"}), 200)
}

// TestTeams has one team try everything on what is another's.
func TestTeams(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create(`{"template":"base"}`).ID
	as[rest.Snapshot](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + id + "/snapshots", body: `{"name":"ours"}`}), 201)
	mine := as[rest.KeyPage](t, w.do(call{method: "GET", path: "/v1/keys"}), 200).Keys[0].ID
	_, theirs := w.NewTeam("theirs")
	at := "/v1/sandboxes/" + id
	for _, c := range []call{
		{method: "GET", path: at}, {method: "PATCH", path: at, body: `{"metadata":{}}`}, {method: "PATCH", path: at, body: `{"ttl_seconds":1}`},
		{method: "DELETE", path: at}, {method: "POST", path: at + "/pause"}, {method: "POST", path: at + "/resume"},
		{method: "POST", path: at + "/fork", body: `{}`}, {method: "POST", path: at + "/exec", body: `{"cmd":"cat"}`},
		{method: "POST", path: at + "/exec/stream", body: `{"cmd":"cat"}`}, {method: "POST", path: at + "/snapshots", body: `{"name":"x"}`},
		{method: "GET", path: "/v1/snapshots/ours"}, {method: "DELETE", path: "/v1/snapshots/ours"}, {method: "DELETE", path: "/v1/keys/" + mine},
		{method: "POST", path: "/v1/sandboxes", body: `{"snapshot":"ours"}`},
	} {
		c.key = theirs
		fails(t, w.do(c), 404, rest.NotFound)
	}
	if page := as[rest.SandboxPage](t, w.do(call{method: "GET", path: "/v1/sandboxes", key: theirs}), 200); len(page.Sandboxes) != 0 {
		t.Errorf("%+v", page)
	}
	if page := as[rest.SnapshotPage](t, w.do(call{method: "GET", path: "/v1/snapshots", key: theirs}), 200); len(page.Snapshots) != 0 {
		t.Errorf("%+v", page)
	}
	if w.get(id).State != rest.Running {
		t.Error("it was touched")
	}
	// A name is a team's own.
	other := as[rest.Sandbox](t, w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`, key: theirs}), 201)
	as[rest.Snapshot](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + other.ID + "/snapshots", body: `{"name":"ours"}`, key: theirs}), 201)
}

func TestEvents(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	other := w.create(`{"template":"base"}`).ID
	id := w.create(`{"template":"base"}`).ID
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + other}), 204)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + id}), 204)
	got := readEvents(t, w, "?sandbox="+id, "0.0", 4)
	var states []rest.State
	for _, e := range got {
		states = append(states, e.event.State)
		if e.event.SandboxID != id || e.event.Reason == "" || e.event.At.IsZero() {
			t.Errorf("%+v", e)
		}
	}
	if want := []rest.State{rest.Starting, rest.Running, rest.Stopping, rest.Stopped}; !slices.Equal(states, want) {
		t.Errorf("got %v, want %v", states, want)
	}
	if again := readEvents(t, w, "?sandbox="+id, got[1].id, 2); again[0].event.State != rest.Stopping {
		t.Errorf("after the second one comes %+v", again[0])
	}
	whole := w.do(call{method: "GET", path: "/v1/events?until=now", header: map[string]string{"Last-Event-ID": "0.0"}})
	if list := parseEvents(t, string(whole.body)); whole.status != 200 || len(list) != 8 || list[7].id != got[3].id {
		t.Errorf("until now there are %d events: %s", len(list), whole.body)
	}
}

type sent struct {
	id    string
	event rest.Event
}

// readEvents reads n events after one.
func readEvents(t *testing.T, w *world, query, after string, n int) []sent {
	t.Helper()
	req := w.request(t.Context(), call{method: "GET", path: "/v1/events" + query, header: map[string]string{"Last-Event-ID": after}})
	resp, err := w.HTTP.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []sent
	var text bytes.Buffer
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(20 * time.Second); len(list) < n && time.Now().Before(deadline); {
		read, err := resp.Body.Read(buf)
		text.Write(buf[:read])
		if list = parseEvents(t, text.String()); err != nil {
			break
		}
	}
	contract.check(t, req, resp, text.Bytes())
	if len(list) < n {
		t.Fatalf("%d events, want %d: %s", len(list), n, text.String())
	}
	return list
}

func parseEvents(t *testing.T, text string) []sent {
	t.Helper()
	var list []sent
	blocks := strings.Split(text, "\n\n")
	for _, block := range blocks[:len(blocks)-1] {
		var e sent
		var data string
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
			switch name {
			case "id":
				e.id = value
			case "data":
				data = value
			}
		}
		if data == "" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &e.event); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// TestHeaders are on every answer.
func TestHeaders(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	for _, c := range []call{{method: "GET", path: "/v1/sandboxes"}, {method: "GET", path: "/v1/sandboxes", key: "none"}, {method: "PUT", path: "/v1/sandboxes"}} {
		h := w.do(c).header
		if h.Get("X-Request-Id") == "" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %v", c.method, c.path, h)
		}
	}
	if allow := w.do(call{method: http.MethodPut, path: "/v1/sandboxes"}).header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow: %q", allow)
	}
	if allow := w.do(call{method: http.MethodPut, path: "/v1/hosts/tokens"}).header.Get("Allow"); allow != "POST" {
		t.Errorf("Allow, where a host's id could be: %q", allow)
	}
}
